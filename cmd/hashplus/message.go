package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	"github.com/alecthomas/kong"

	"hashplus/cmd/hashplus/mqttclient"
)

// messageFlags describe a message to publish, apart from its payload.
type messageFlags struct {
	Topic           string         `short:"t" required:"" help:"Topic to publish to."`
	QoS             byte           `name:"qos" short:"q" default:"0" help:"QoS: 0, 1 or 2."`
	Retain          bool           `short:"r" help:"Retain the message."`
	ContentType     string         `help:"Content type (5)."`
	PayloadFormat   string         `enum:"bytes,text" default:"bytes" help:"Payload format indicator: bytes or text (5)."`
	MessageExpiry   Seconds        `default:"0" help:"Message expiry (5); 0 sets none."`
	UserProperty    []userProperty `placeholder:"NAME=VALUE" sep:"none" help:"User property (5). Repeatable."`
	ResponseTopic   string         `help:"Topic to reply to (5)."`
	CorrelationData argument       `placeholder:"TEXT" help:"Correlation data (5)."`
}

// message builds the message without its payload.
func (f *messageFlags) message(v protocolVersion) (mqttclient.Message, error) {
	m := mqttclient.Message{Topic: f.Topic, QoS: f.QoS, Retain: f.Retain}
	if err := checkTopic("--topic", f.Topic); err != nil {
		return m, usageError{err}
	}
	if f.QoS > 2 {
		return m, usagef("--qos is %d; allowed are 0, 1, 2", f.QoS)
	}
	if f.ResponseTopic != "" {
		if err := checkTopic("--response-topic", f.ResponseTopic); err != nil {
			return m, usageError{err}
		}
	}
	m.ContentType, m.ResponseTopic = f.ContentType, f.ResponseTopic
	m.Text = f.PayloadFormat == "text"
	m.HasExpiry, m.Expiry = f.MessageExpiry != 0, uint32(f.MessageExpiry)
	m.User = userProperties(f.UserProperty)
	m.CorrelationData = f.CorrelationData.bytes()
	if !m.IsZero() && mqttclient.Version(v) != mqttclient.V5 {
		return m, usagef("message properties need --mqtt-version 5")
	}
	return m, nil
}

// argument is a flag's value byte for byte, where kong would replace what is not
// UTF-8.
type argument struct {
	text  string
	given bool // the value may be empty
}

// Decode is part of kong.MapperValue.
func (a *argument) Decode(ctx *kong.DecodeContext) error {
	t := ctx.Scan.Pop()
	if t.IsEOL() {
		return errors.New("missing value")
	}
	a.text, a.given = t.String(), true
	return nil
}

// bytes is the value, nil if the flag was not given.
func (a *argument) bytes() []byte {
	if !a.given {
		return nil
	}
	return []byte(a.text)
}

// payloadFlags say where the payload comes from.
type payloadFlags struct {
	Message argument `short:"m" xor:"payload" placeholder:"TEXT" help:"Payload."`
	File    string   `short:"f" xor:"payload" type:"path" help:"File whose content is the payload; - is standard input."`
	Empty   bool     `short:"n" xor:"payload" help:"Publish an empty payload; with --retain it clears what is retained."`
}

// given reports whether any source was named.
func (f *payloadFlags) given() bool { return f.Message.given || f.File != "" || f.Empty }

// read returns the payload.
func (f *payloadFlags) read(stdin io.Reader) ([]byte, error) {
	switch {
	case f.Message.given:
		return f.Message.bytes(), nil
	case f.File == "-":
		return io.ReadAll(stdin)
	case f.File != "":
		b, err := os.ReadFile(f.File)
		if err != nil {
			return nil, usagef("--file: %w", err)
		}
		return b, nil
	}
	return nil, nil
}

// checkText refuses a payload that is not what its format indicator says
// [MQTT-3.3.2-4], as the server would.
func checkText(m *mqttclient.Message) error {
	if m.Text && !utf8.Valid(m.Payload) {
		return errors.New("the payload is not UTF-8, but --payload-format says text")
	}
	return nil
}

// maxLine is the longest line of standard input: the largest packet there is.
const maxLine = 256 << 20

// lines calls f for each line of r without its end, until f fails. b is f's to
// keep.
func lines(r io.Reader, f func(b []byte) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine)
	for s.Scan() {
		if err := f(bytes.Clone(s.Bytes())); err != nil {
			return err
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	return nil
}
