// Package attacks lets attackers with a bounded budget loose on the built
// hashplus, while 500 honest clients beside them ask and answer. It has no code
// of its own.
//
// Who is who:
//
//   - the broker, a process of its own, new for each attack;
//   - the honest clients: 250 pairs over WebSocket in a process of their own,
//     made of bench/drive; they measure each round trip from the moment at which
//     it was due;
//   - the control: a process that echoes as many messages over as many loopback
//     connections, and tells how much of a latency is the machine's;
//   - the attackers: processes with the lowest claim to the processors (nice 19),
//     from other addresses of 127.0.0.0/8.
//
// Clients, control and attackers are this test's own program, started again.
//
// TestAttacks takes a second for each attack and judges what does not depend on
// the machine: nobody honest is disconnected or loses a message, memory stays
// within its bound, the attackers are told what they should. "make attacks" takes
// its time and judges the latencies too; it writes the table in docs/security.md.
package attacks
