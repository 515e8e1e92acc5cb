package wire

import (
	"bytes"
	"reflect"
	"testing"
)

func TestPassProperties_RoundTrip(t *testing.T) {
	for _, want := range []PassProperties{
		{},
		{HasExpiry: true},
		{UserProperties: []UserProperty{{"b", "2"}, {"a", "1"}, {"b", "2"}}},
		{PayloadIsText: true, HasExpiry: true, Expiry: 9, ContentType: "text/plain", ResponseTopic: "r/t", CorrelationData: []byte{},
			UserProperties: []UserProperty{{"k", ""}}},
	} {
		before := []byte("before")
		all, at := want.Append(before)
		props := bytes.TrimPrefix(all, before)
		checkExpiryAt(t, props, at, want.Expiry)
		p := accepted(t, V5, fromClient, pkt(0x30, str("t"), pkt(0, props)[1:])).(*Publish)
		if p.ExpiryAt != at || !bytes.Equal(p.Props, props) {
			t.Errorf("%+v: Publish has %+v", want, p)
		}
		got := ReadPassProperties(props)
		for i := range all {
			all[i] = 0xAA // what was read owns its memory
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestReadPassProperties_PanicsOnWhatWasNotChecked(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	ReadPassProperties([]byte{propContentType, 0, 9, 'x'})
}
