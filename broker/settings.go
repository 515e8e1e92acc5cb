package broker

import (
	"fmt"

	"hashplus/broker/wire"
)

// settings are Options in force. They are immutable: SetOptions puts others in
// their place. A connection keeps those that it was announced for as long as it
// lasts.
type settings struct {
	Options
	wire wire.Limits
}

func newSettings(o Options) *settings {
	return &settings{o, wire.Limits{UserProperties: o.MaxUserProperties, TopicLength: o.MaxTopicLength, TopicLevels: o.MaxTopicLevels}}
}

// options are what is in force now. Any goroutine.
func (b *Broker) options() *settings { return b.settings.Load() }

// SetOptions puts other numbers, durations and switches in force in place of
// those that New was given, with the defaults for what is zero: all of Options
// but what is an interface, a function or the store's, Limits, and Version, which
// stay as they are (see SetAuthenticators, SetAuthorizer and SetLimits). What a client is told at
// CONNECT, MaxConnectSize and MaxInflight hold for connections that come later;
// the rest holds at once. What a session has already stays, also where it is more
// than is allowed now. Any goroutine.
func (b *Broker) SetOptions(o Options) error {
	fixed := &b.opts
	o.Logger, o.Authenticator, o.EnhancedAuthenticators = fixed.Logger, fixed.Authenticator, fixed.EnhancedAuthenticators
	o.Authorizer, o.Observer, o.Limits = fixed.Authorizer, fixed.Observer, fixed.Limits
	o.OpenStore, o.ReadData, o.StoreStuck = fixed.OpenStore, fixed.ReadData, fixed.StoreStuck
	o.Sys, o.Version = fixed.Sys, fixed.Version
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return fmt.Errorf("broker options: %w", err)
	}
	b.settings.Store(newSettings(o))
	if b.running.Load() {
		b.loops[0].call((*loop).rearmSys)
	}
	return nil
}
