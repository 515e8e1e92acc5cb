package broker

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"hashplus/transport/link"
)

// foreign is what a loop calls of its embedder's. A panic there must not end what
// the loop is at: amid a message it would cost other receivers theirs, and leave
// acknowledgements waiting for what is never handed in. It is logged, seldom
// enough not to fill the log.
type foreign struct {
	log  *slog.Logger
	born time.Time

	mu    sync.Mutex
	lines link.Lines // guarded by mu
}

func newForeign(log *slog.Logger) *foreign { return &foreign{log: log, born: time.Now()} }

// caught is deferred around a call.
func (f *foreign) caught(what, who string) {
	r := recover()
	if r == nil {
		return
	}
	f.mu.Lock()
	missed, ok := f.lines.Allow(int64(time.Since(f.born)))
	f.mu.Unlock()
	if ok {
		f.log.Error("panic in "+what, "client", who, "panic", fmt.Sprint(r), "stack", string(debug.Stack()), "others", missed)
	}
}

// authorizer is an Authorizer that may panic: that is a no.
type authorizer struct {
	az    Authorizer
	whole FilterAuthorizer // az, if it is one
	calls *foreign
}

func (a *authorizer) CanPublish(id *Identity, topic []byte) (yes bool) {
	defer a.calls.caught("Authorizer.CanPublish", id.ClientID)
	return a.az.CanPublish(id, topic)
}

func (a *authorizer) CanSubscribe(id *Identity, filter string) (yes bool) {
	defer a.calls.caught("Authorizer.CanSubscribe", id.ClientID)
	return a.az.CanSubscribe(id, filter)
}

func (a *authorizer) CanReceive(id *Identity, topic []byte) (yes bool) {
	defer a.calls.caught("Authorizer.CanReceive", id.ClientID)
	return a.az.CanReceive(id, topic)
}

// CanReceiveAll is false, too, where az is no FilterAuthorizer.
func (a *authorizer) CanReceiveAll(id *Identity, filter string) (yes bool) {
	if a.whole == nil {
		return false
	}
	defer a.calls.caught("FilterAuthorizer.CanReceiveAll", id.ClientID)
	return a.whole.CanReceiveAll(id, filter)
}

// observer is an Observer that may panic.
type observer struct {
	o     Observer
	calls *foreign
}

func (o *observer) Connected(e ClientEvent) {
	defer o.calls.caught("Observer.Connected", e.ClientID)
	o.o.Connected(e)
}

func (o *observer) Disconnected(e ClientEvent) {
	defer o.calls.caught("Observer.Disconnected", e.ClientID)
	o.o.Disconnected(e)
}

func (o *observer) Subscribed(id *Identity, filter string, qos byte) {
	defer o.calls.caught("Observer.Subscribed", id.ClientID)
	o.o.Subscribed(id, filter, qos)
}

func (o *observer) Unsubscribed(id *Identity, filter string) {
	defer o.calls.caught("Observer.Unsubscribed", id.ClientID)
	o.o.Unsubscribed(id, filter)
}

func (o *observer) Dropped(client string, topic []byte, why DropReason) {
	defer o.calls.caught("Observer.Dropped", client)
	o.o.Dropped(client, topic, why)
}
