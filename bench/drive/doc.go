// Package drive runs the clients of a load test: a few thousand MQTT
// connections on one thread, over one epoll instance, with no goroutine and no
// timer per client.
//
// A Plan says who connects, who subscribes to what and who publishes; a Loop
// carries it out and accounts for every message. All of a Loop belongs to the
// goroutine that calls Run, except its Counters, which anybody may read.
package drive
