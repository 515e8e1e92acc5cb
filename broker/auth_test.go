package broker

// testAuthorizer allows what its functions do; nil ones allow all.
type testAuthorizer struct {
	publish   func(id *Identity, topic string) bool
	subscribe func(id *Identity, filter string) bool
	receive   func(id *Identity, topic string) bool
}

func (a *testAuthorizer) CanPublish(id *Identity, topic []byte) bool {
	return a.publish == nil || a.publish(id, string(topic))
}

func (a *testAuthorizer) CanSubscribe(id *Identity, filter string) bool {
	return a.subscribe == nil || a.subscribe(id, filter)
}

func (a *testAuthorizer) CanReceive(id *Identity, topic []byte) bool {
	return a.receive == nil || a.receive(id, string(topic))
}
