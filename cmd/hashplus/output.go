package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"hashplus/cmd/hashplus/mqttclient"
)

// outputFlags choose how received messages are printed.
type outputFlags struct {
	JSON      bool   `name:"json" xor:"output" help:"Print one JSON object a line."`
	Format    string `short:"F" xor:"output" placeholder:"TEXT" help:"Print by a pattern: %t topic, %p payload, %x payload in hex, %l length, %q QoS, %r retain, %d duplicate, %I time, %U Unix time, %C content type, %R response topic, %D correlation data, %E expiry, %F payload format, %P user properties, %S subscription identifier, %% percent; \\n, \\t, \\\\."`
	Verbose   bool   `short:"v" xor:"output" help:"Print the topic before the payload."`
	NoNewline bool   `short:"N" help:"No line end after a message."`
}

// check refuses a pattern with unknown letters, before anything is connected.
func (f *outputFlags) check() error {
	if f.Format == "" {
		return nil
	}
	_, err := expand(f.Format, &mqttclient.Message{}, time.Time{})
	return err
}

// print writes one message, in one Write.
func (f *outputFlags) print(w io.Writer, m *mqttclient.Message) error {
	var b []byte
	switch {
	case f.JSON:
		var err error
		if b, err = json.Marshal(toRecord(m, time.Now())); err != nil {
			return err
		}
	case f.Format != "":
		s, err := expand(f.Format, m, time.Now())
		if err != nil {
			return err
		}
		b = []byte(s)
	case f.Verbose:
		b = append(append([]byte(m.Topic), ' '), m.Payload...)
	default:
		b = append(b, m.Payload...)
	}
	if !f.NoNewline {
		b = append(b, '\n')
	}
	_, err := w.Write(b)
	return err
}

// record is a message as a JSON object. Payload and correlation data are text
// where they are UTF-8, else they stand in the base64 field.
type record struct {
	Time            string      `json:"time"`
	Topic           string      `json:"topic"`
	QoS             byte        `json:"qos"`
	Retain          bool        `json:"retain"`
	Dup             bool        `json:"dup,omitempty"`
	Payload         *string     `json:"payload,omitempty"`
	PayloadBase64   string      `json:"payload_base64,omitempty"`
	ContentType     string      `json:"content_type,omitempty"`
	PayloadFormat   int         `json:"payload_format,omitempty"`
	MessageExpiry   *uint32     `json:"message_expiry,omitempty"`
	ResponseTopic   string      `json:"response_topic,omitempty"`
	Correlation     *string     `json:"correlation_data,omitempty"`
	CorrelationB64  string      `json:"correlation_data_base64,omitempty"`
	SubscriptionID  int         `json:"subscription_identifier,omitempty"`
	UserProperties  [][2]string `json:"user_properties,omitempty"`
	ReasonCode      *byte       `json:"reason_code,omitempty"` // what pub prints
	DeliveredNobody bool        `json:"no_matching_subscribers,omitempty"`
}

func toRecord(m *mqttclient.Message, at time.Time) *record {
	r := &record{
		Time: at.Format(time.RFC3339Nano), Topic: m.Topic, QoS: m.QoS, Retain: m.Retain, Dup: m.Dup,
		ContentType: m.ContentType, ResponseTopic: m.ResponseTopic, SubscriptionID: m.SubscriptionID,
	}
	r.Payload, r.PayloadBase64 = textOrBase64(m.Payload)
	if m.CorrelationData != nil {
		r.Correlation, r.CorrelationB64 = textOrBase64(m.CorrelationData)
	}
	if m.Text {
		r.PayloadFormat = 1
	}
	if m.HasExpiry {
		r.MessageExpiry = &m.Expiry
	}
	for _, u := range m.User {
		r.UserProperties = append(r.UserProperties, [2]string{u.Key, u.Value})
	}
	return r
}

func textOrBase64(b []byte) (*string, string) {
	if utf8.Valid(b) {
		s := string(b)
		return &s, ""
	}
	return nil, base64.StdEncoding.EncodeToString(b)
}

// expand fills in a --format pattern.
func expand(pattern string, m *mqttclient.Message, at time.Time) (string, error) {
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		c := pattern[i]
		if c != '%' && c != '\\' {
			b.WriteByte(c)
			continue
		}
		if i++; i == len(pattern) {
			return "", fmt.Errorf("--format ends in a lone %q", c)
		}
		if c == '\\' {
			switch pattern[i] {
			case 'n':
				b.WriteByte('\n')
			case 't':
				b.WriteByte('\t')
			case 'r':
				b.WriteByte('\r')
			case '0':
				b.WriteByte(0)
			case '\\':
				b.WriteByte('\\')
			default:
				return "", fmt.Errorf(`--format: \%c is not one of \n \t \r \0 \\`, pattern[i])
			}
			continue
		}
		if !field(&b, pattern[i], m, at) {
			return "", fmt.Errorf("--format: %%%c is not known, see --help", pattern[i])
		}
	}
	return b.String(), nil
}

// field writes what a letter of a pattern stands for.
func field(b *strings.Builder, letter byte, m *mqttclient.Message, at time.Time) bool {
	flag := func(v bool) string {
		if v {
			return "1"
		}
		return "0"
	}
	switch letter {
	case '%':
		b.WriteByte('%')
	case 't':
		b.WriteString(m.Topic)
	case 'p':
		b.Write(m.Payload)
	case 'x':
		b.WriteString(hex.EncodeToString(m.Payload))
	case 'l':
		b.WriteString(strconv.Itoa(len(m.Payload)))
	case 'q':
		b.WriteString(strconv.Itoa(int(m.QoS)))
	case 'r':
		b.WriteString(flag(m.Retain))
	case 'd':
		b.WriteString(flag(m.Dup))
	case 'I':
		b.WriteString(at.Format("2006-01-02T15:04:05.000Z07:00"))
	case 'U':
		fmt.Fprintf(b, "%d.%09d", at.Unix(), at.Nanosecond())
	case 'C':
		b.WriteString(m.ContentType)
	case 'R':
		b.WriteString(m.ResponseTopic)
	case 'D':
		b.Write(m.CorrelationData)
	case 'E':
		if m.HasExpiry {
			b.WriteString(strconv.FormatUint(uint64(m.Expiry), 10))
		}
	case 'F':
		b.WriteString(flag(m.Text))
	case 'S':
		if m.SubscriptionID != 0 {
			b.WriteString(strconv.Itoa(m.SubscriptionID))
		}
	case 'P':
		for i, u := range m.User {
			if i > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(u.Key + "=" + u.Value)
		}
	default:
		return false
	}
	return true
}
