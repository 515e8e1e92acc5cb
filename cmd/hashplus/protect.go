package main

import (
	"errors"
	"slices"
	"strings"
	"time"

	"hashplus/broker"
	"hashplus/transport"
)

// protection is what keeps single clients and addresses from taking more than
// their share, and all of them from taking more than there is.
type protection struct {
	MaxPublishRate        int      `default:"0" help:"PUBLISH packets of one client a second, and as many at once; a faster one is read from more slowly. 0 does not limit it."`
	MaxPublishBytes       Size     `default:"0" help:"Bytes of PUBLISH packets of one client a second, in the same way. 0 does not limit it."`
	MaxMemory             Size     `default:"0" help:"Resident memory of the process above which new connections, QoS 1 and 2 messages and subscriptions are refused, until it has fallen a tenth below. 0 does not limit it."`
	MaxAddressConnections int      `default:"0" help:"Connections of one address, of IPv6 of a network of 64 bits. Loopback, Unix sockets and trusted proxies themselves do not count. 0 does not limit them."`
	MaxAddressRate        int      `default:"0" help:"New connections of one address within a minute, which may come all at once. 0 does not limit them."`
	MaxLoopLag            Duration `default:"500ms" help:"Length of a turn of an event loop above which each listener lets in only ten connections a second. 0 lets in as many as come."`

	MaxRetainedMessages int  `default:"1000000" help:"Retained messages of all topics."`
	MaxRetainedBytes    Size `default:"256MiB" help:"Bytes of all retained messages: topics, payloads, properties and 64 for each."`

	BanAuthFailures int      `default:"0" help:"Failed authentications within ban-window that a ban follows, of the address and, if ban-by says so, of the username. 0 bans nobody for that."`
	BanConnects     int      `default:"0" help:"Accepted connections within ban-window that a ban follows, of the client identifier and the address. 0 bans nobody for that."`
	BanWindow       Duration `default:"1m" help:"The time within which offences count; it begins with the first."`
	BanTime         Duration `default:"5m" help:"How long a ban lasts."`
	BanBy           []string `default:"address,client-id" placeholder:"WHAT" help:"What is banned: address (of IPv6 the network of 64 bits), client-id, username. Whoever knows a client identifier or username can have it banned. Repeatable."`
}

// liveProtection are the keys of protection that a reload changes.
var liveProtection = []string{ //nolint:gochecknoglobals // a table
	"max-memory", "max-address-connections", "max-address-rate", "max-loop-lag",
	"max-publish-rate", "max-publish-bytes", "max-retained-messages", "max-retained-bytes",
	"ban-auth-failures", "ban-connects", "ban-window", "ban-time", "ban-by",
}

// minMemory is the least limit of memory that makes sense.
const minMemory = 32 << 20

// check holds the numbers to what the broker allows.
func (c *protection) check(fault func(key, format string, args ...any)) {
	checkNumber(fault, "max-publish-rate", c.MaxPublishRate)
	checkSize(fault, "max-publish-bytes", c.MaxPublishBytes)
	checkSize(fault, "max-memory", c.MaxMemory)
	if c.MaxMemory > 0 && c.MaxMemory < minMemory {
		fault("max-memory", "%s is not allowed; 0 or from %s on is: the broker itself needs some", c.MaxMemory, Size(minMemory))
	}
	checkNumber(fault, "max-address-connections", c.MaxAddressConnections)
	checkNumber(fault, "max-address-rate", c.MaxAddressRate)
	if c.MaxLoopLag < 0 || c.MaxLoopLag > 0 && c.MaxLoopLag < Duration(time.Millisecond) {
		fault("max-loop-lag", "%s is not allowed; 0 or from 1ms on is", c.MaxLoopLag)
	}
	checkNumber(fault, "max-retained-messages", c.MaxRetainedMessages)
	checkSize(fault, "max-retained-bytes", c.MaxRetainedBytes)
	checkNumber(fault, "ban-auth-failures", c.BanAuthFailures)
	checkNumber(fault, "ban-connects", c.BanConnects)
	for key, d := range map[string]Duration{"ban-window": c.BanWindow, "ban-time": c.BanTime} {
		if d < Duration(time.Second) {
			fault(key, "%s is not allowed; 1s or more is", d)
		}
	}
	for _, what := range c.BanBy {
		if what != "address" && what != "client-id" && what != "username" {
			fault("ban-by", "%q is not one of address, client-id, username", what)
		}
	}
	c.checkBans(fault)
}

// checkBans finds settings of bans that nobody would be banned by.
func (c *protection) checkBans(fault func(key, format string, args ...any)) {
	if c.BanAuthFailures == 0 && c.BanConnects == 0 {
		for _, key := range changed(c) {
			if strings.HasPrefix(key, "ban-") {
				fault(key, "is set, but nobody is banned: ban-auth-failures and ban-connects are 0")
			}
		}
	}
	address := slices.Contains(c.BanBy, "address")
	if c.BanAuthFailures > 0 && !address && !slices.Contains(c.BanBy, "username") {
		fault("ban-auth-failures", "is set, but nobody is banned for that: ban-by has neither address nor username")
	}
	if c.BanConnects > 0 && !address && !slices.Contains(c.BanBy, "client-id") {
		fault("ban-connects", "is set, but nobody is banned for that: ban-by has neither address nor client-id")
	}
}

// limits is what the broker is to know of them.
func (c *protection) limits() broker.Limits {
	by := " "
	if c.BanAuthFailures > 0 || c.BanConnects > 0 {
		by += strings.Join(c.BanBy, " ") + " "
	}
	return broker.Limits{
		PublishRate:         c.MaxPublishRate,
		PublishBytes:        int(c.MaxPublishBytes),
		MaxRetainedMessages: c.MaxRetainedMessages,
		MaxRetainedBytes:    int(c.MaxRetainedBytes),
		Bans: broker.Bans{
			AuthFailures: c.BanAuthFailures,
			Connects:     c.BanConnects,
			Window:       time.Duration(c.BanWindow),
			Time:         time.Duration(c.BanTime),
			Address:      strings.Contains(by, " address "),
			ClientID:     strings.Contains(by, " client-id "),
			Username:     strings.Contains(by, " username "),
		},
	}
}

// transportLimits is what the transport is to know of them.
func (c *protection) transportLimits() transport.Limits {
	l := transport.Limits{
		AddressConns: c.MaxAddressConnections, AddressRate: c.MaxAddressRate, LoopLag: time.Duration(c.MaxLoopLag),
	}
	if l.LoopLag == 0 {
		l.LoopLag = -1 // zero asks for the default there
	}
	return l
}

// protect has reloads change all of it.
func (r *reloader) protect(b *broker.Broker, s *transport.Server, memory *memoryWatch) {
	r.live(func(next *configuration) (func(), error) {
		limits, edge := next.limits(), next.transportLimits()
		if err := errors.Join(limits.Validate(), edge.Validate()); err != nil {
			return nil, err
		}
		return func() {
			_, _ = b.SetLimits(limits), s.SetLimits(edge) // they are valid
			memory.set(next.MaxMemory)
		}, nil
	}, liveProtection...)
}

// transportSys are the values that a server adds to those of $SYS.
func transportSys(s *transport.Server, add func(name string, value int64)) {
	st := s.Stats()
	add("connections/count", st.Conns)
	add("refused/connections", st.RefusedFull)
	add("refused/address-connections", st.RefusedAddress)
	add("refused/address-rate", st.RefusedRate)
	add("refused/address-banned", st.RefusedBanned)
	add("refused/proxy", st.RefusedProxy)
	add("refused/tls", st.RefusedTLS)
	add("tls/handshakes", st.Handshakes)
	add("loops/accept-pauses", st.AcceptPauses)
	add("loops/lag", st.Lag.Milliseconds())
}
