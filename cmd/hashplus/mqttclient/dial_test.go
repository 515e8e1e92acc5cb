package mqttclient

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

func TestParseURL_FillsInPortsAndPath(t *testing.T) {
	for in, want := range map[string]string{
		"mqtt://h":               "mqtt://h:1883",
		"tcp://h:1":              "mqtt://h:1",
		"mqtts://h":              "mqtts://h:8883",
		"ssl://h":                "mqtts://h:8883",
		"ws://h":                 "ws://h:80/mqtt",
		"ws://h/":                "ws://h:80/mqtt",
		"wss://h/x?token=a":      "wss://h:443/x?token=a",
		"mqtt://u:p@[::1]":       "mqtt://u:p@[::1]:1883",
		"unix:///run/x.sock":     "unix:///run/x.sock",
		"unix://relative/x.sock": "unix://relative/x.sock",
	} {
		u, err := ParseURL(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		got := u.String()
		if u.Scheme == "unix" {
			got = "unix://" + u.Path
		}
		if got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	for _, in := range []string{"", "h:1883", "http://h", "mqtt://", "ws:///x", "unix://", "mqtt://h:x", "mqtt://u:secret%zz@h"} {
		u, err := ParseURL(in)
		if err == nil {
			t.Errorf("%q was read as %v", in, u)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

// FuzzParseURL: what was accepted has a host or path, and never changes again.
func FuzzParseURL(f *testing.F) {
	for _, s := range []string{"mqtt://h", "ws://u:p@h:1/x", "unix:///a", "wss://[::1]", "tcp://h:99999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURL(s)
		if err != nil || u.Scheme == "unix" {
			return
		}
		if u.Hostname() == "" || u.Port() == "" {
			t.Fatalf("%q gives %v without host or port", s, u)
		}
		again, err := ParseURL(u.String())
		if err != nil || again.String() != u.String() {
			t.Fatalf("%q gives %v, which gives %v, %v", s, u, again, err)
		}
	})
}

func TestBackoff_DoublesWithJitterBetweenItsBounds(t *testing.T) {
	b := Backoff{Min: 100 * time.Millisecond, Max: 3 * time.Second}
	for attempt, whole := range map[int]time.Duration{
		1: 100 * time.Millisecond, 2: 200 * time.Millisecond, 3: 400 * time.Millisecond,
		5: 1600 * time.Millisecond, 6: 3 * time.Second, 7: 3 * time.Second, 1000: 3 * time.Second,
	} {
		least, most := time.Hour, time.Duration(0)
		for range 1000 {
			d := b.Wait(attempt)
			least, most = min(least, d), max(most, d)
		}
		if least < whole/2 || most > whole || most-least < whole/4 {
			t.Errorf("attempt %d waits %v to %v, want it spread over %v to %v", attempt, least, most, whole/2, whole)
		}
	}
	if d := (Backoff{}).Wait(1); d < 500*time.Millisecond || d > time.Second {
		t.Errorf("the zero Backoff begins with %v", d)
	}
	if d := (Backoff{Min: time.Minute, Max: time.Second}).Wait(3); d > time.Minute {
		t.Errorf("Max below Min waits %v", d)
	}
}

func TestWebSocket_EachPacketIsOneMessage(t *testing.T) {
	both(t, func(t *testing.T, v Version) {
		messages := make(chan []byte, 100)
		upgrader := websocket.Upgrader{Subprotocols: []string{"mqtt"}}
		done := make(chan struct{})
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer close(done)
			c, err := upgrader.Upgrade(w, r, nil)
			if err != nil {
				return
			}
			defer c.Close() //nolint:errcheck // it is over
			if c.Subprotocol() != "mqtt" {
				t.Errorf("sub-protocol %q", c.Subprotocol())
			}
			for first := true; ; first = false {
				kind, b, err := c.ReadMessage()
				if err != nil {
					return
				}
				if kind != websocket.BinaryMessage {
					t.Errorf("message of kind %d", kind)
				}
				messages <- b
				if first { // CONNACK in pieces, with empty messages between
					for _, b := range accept(v) {
						_ = c.WriteMessage(websocket.BinaryMessage, []byte{b})
						_ = c.WriteMessage(websocket.BinaryMessage, nil)
					}
				}
			}
		}))
		defer s.Close()
		o := options("", v)
		o.URL, _ = url.Parse(strings.Replace(s.URL, "http", "ws", 1))
		o.KeepAlive = 0 // the library for 5.0 begins with a ping
		c := connect(t, o)
		m := Message{Topic: "some/topic", Payload: []byte("payload")}
		if v == V5 {
			m.ContentType = "text/plain"
		}
		if _, err := c.Publish(within(t), m); err != nil {
			t.Fatal(err)
		}
		c.Close()
		<-done
		close(messages)
		var kinds []byte
		for b := range messages {
			if len(b) < 2 || int(b[1]) != len(b)-2 { // all are shorter than 128 bytes
				t.Errorf("message %x is not one packet", b)
				continue
			}
			kinds = append(kinds, b[0]>>4)
		}
		if string(kinds) != "\x01\x03\x0e" {
			t.Errorf("packets of the types %v, want CONNECT, PUBLISH, DISCONNECT", kinds)
		}
	})
}

func TestWebSocket_RefusedUpgradeTellsWhy(t *testing.T) {
	both(t, func(t *testing.T, v Version) {
		for status, fatal := range map[int]bool{403: true, 404: true, 429: false, 503: false} {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				http.Error(w, "the reason", status)
			}))
			o := options("", v)
			o.URL, _ = url.Parse(strings.Replace(s.URL, "http", "ws", 1))
			_, err := Dial(within(t), o)
			s.Close()
			var e *Error
			if !errors.As(err, &e) || e.Stage != Dialing || e.Fatal != fatal ||
				!strings.Contains(err.Error(), http.StatusText(status)) || !strings.Contains(err.Error(), "the reason") {
				t.Errorf("status %d: %v", status, err)
			}
		}
	})
}

func TestWebSocket_TextMessageIsRefused(t *testing.T) { // [MQTT-6.0.0-1]
	both(t, func(t *testing.T, v Version) {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
			if err != nil {
				return
			}
			defer c.Close() //nolint:errcheck // it is over
			_, _, _ = c.ReadMessage()
			_ = c.WriteMessage(websocket.TextMessage, accept(v))
			_, _, _ = c.ReadMessage()
		}))
		defer s.Close()
		o := options("", v)
		o.URL, _ = url.Parse(strings.Replace(s.URL, "http", "ws", 1))
		if _, err := Dial(within(t), o); err == nil {
			t.Error("a CONNACK in a text message was taken")
		}
	})
}

func TestDial_WhatTheVersionLacksIsRefused(t *testing.T) {
	for name, change := range map[string]func(o *Options){
		"session expiry":    func(o *Options) { o.SessionExpiry = 1 },
		"receive maximum":   func(o *Options) { o.ReceiveMaximum = 1 },
		"packet size":       func(o *Options) { o.MaxPacketSize = 1000 },
		"user properties":   func(o *Options) { o.UserProperties = []UserProperty{{"a", "b"}} },
		"will delay":        func(o *Options) { o.Will = &Will{Delay: 1} },
		"will properties":   func(o *Options) { o.Will = &Will{}; o.Will.ContentType = "x" },
		"password alone":    func(o *Options) { o.HasPassword = true },
		"session, no id":    func(o *Options) { o.CleanStart = false },
		"keep alive":        func(o *Options) { o.KeepAlive = 65536 * time.Second },
		"negative interval": func(o *Options) { o.KeepAlive = -1 },
		"version":           func(o *Options) { o.Version = 6 },
		"no URL":            func(o *Options) { o.URL = nil },
	} {
		o := options("127.0.0.1:1", V311)
		change(&o)
		_, err := Dial(within(t), o)
		var e *Error
		if err == nil || errors.As(err, &e) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestShown_HasNoUserAndNoQuery(t *testing.T) {
	u, err := url.Parse("wss://u:password@h:443/x?token=secret")
	if err != nil {
		t.Fatal(err)
	}
	if got := shown(u); got != "wss://h:443/x" {
		t.Error(got)
	}
	_, err = dial(t.Context(), &Options{URL: &url.URL{Scheme: "ws", Host: "127.0.0.1:1", Path: "/x", RawQuery: "token=secret"}})
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
}
