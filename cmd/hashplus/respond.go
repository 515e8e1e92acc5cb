package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"time"

	"hashplus/cmd/hashplus/mqttclient"
)

// respondCommand answers requests: with a fixed message, with their own payload,
// or with what a command prints that gets the payload on its standard input.
type respondCommand struct {
	connectionFlags
	Topic         []string `short:"t" required:"" sep:"none" help:"Topic filter of the requests; $$share/group/filter shares them among responders. Repeatable."`
	QoS           byte     `name:"qos" short:"q" default:"0" help:"QoS of requests and replies: 0, 1 or 2."`
	Message       argument `short:"m" xor:"reply" placeholder:"TEXT" help:"Reply with this."`
	Echo          bool     `xor:"reply" help:"Reply with the payload of the request."`
	Exec          string   `xor:"reply" placeholder:"COMMAND" help:"Reply with what this shell command prints. The payload is its standard input; MQTT_TOPIC, MQTT_RESPONSE_TOPIC, MQTT_CONTENT_TYPE are in its environment."`
	ExecTimeout   Duration `default:"30s" help:"Limit for one run of the command."`
	ContentType   string   `help:"Content type of the replies (5)."`
	ReplyTopicKey string   `placeholder:"KEY" help:"Where a request has no response topic (MQTT 3.x), take it from this key of its JSON payload."`
	Parallel      int      `default:"16" help:"How many requests are answered at a time."`
	Count         int      `short:"c" default:"0" help:"End after so many replies; 0 means never."`
	Timeout       Duration `short:"W" default:"0s" help:"End after this time; 0 means never."`
	Verbose       bool     `short:"v" help:"Print the topic of each request that was answered."`
}

// Run answers until it is done.
func (c *respondCommand) Run(env *environment) error {
	subs, err := subscriptions(c.Topic, c.QoS)
	if err != nil {
		return err
	}
	switch {
	case !c.Message.given && !c.Echo && c.Exec == "":
		return usagef("nothing to reply: give --message, --echo or --exec")
	case c.Parallel < 1:
		return usagef("--parallel is %d; it must be at least 1", c.Parallel)
	case c.Count < 0:
		return usagef("--count is %d; it must not be negative", c.Count)
	case c.ContentType != "" && mqttclient.Version(c.MQTTVersion) != mqttclient.V5:
		return usagef("--content-type needs --mqtt-version 5")
	}
	o, err := c.options(env)
	if err != nil {
		return err
	}
	requests := newBacklog()
	o.OnMessage = requests.push
	ctx, cancel := deadline(env, c.Timeout)
	defer cancel()
	client, err := dial(ctx, env, o)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := subscribe(ctx, client, subs); err != nil {
		return ended(env, ctx, err)
	}
	err = c.answerAll(ctx, env, client, requests)
	if c.Count == 0 && ctx.Err() != nil {
		return nil // a signal or --timeout is how this ends
	}
	return ended(env, ctx, err)
}

// answerAll takes requests until enough were answered, the client or ctx ends.
func (c *respondCommand) answerAll(ctx context.Context, env *environment, client *mqttclient.Client, requests *backlog) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		workers sync.WaitGroup
		answers = make(chan error, c.Parallel)
		running int
		done    int
	)
	defer workers.Wait()
	for {
		var next <-chan struct{}
		if running < c.Parallel && (c.Count == 0 || done+running < c.Count) {
			if m, ok := requests.pop(); ok {
				running++
				workers.Go(func() { answers <- c.answer(ctx, env, client, m) })
				continue
			}
			next = requests.more
		}
		select {
		case <-next:
		case err := <-answers:
			running--
			var skipped skippedError
			switch {
			case err == nil:
				if done++; c.Count != 0 && done == c.Count {
					return nil
				}
			case errors.As(err, &skipped):
				if !c.Quiet {
					fmt.Fprintf(env.stderr, "hashplus respond: %v\n", err)
				}
			default:
				return err
			}
		case <-client.Done():
			return client.Err()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// skippedError is a request that gets no reply; the next one may.
type skippedError struct{ error }

// answer makes one reply and publishes it.
func (c *respondCommand) answer(ctx context.Context, env *environment, client *mqttclient.Client, m mqttclient.Message) error {
	to := m.ResponseTopic
	if to == "" && c.ReplyTopicKey != "" {
		to = topicFromJSON(m.Payload, c.ReplyTopicKey)
	}
	if to == "" {
		return skippedError{fmt.Errorf("request on %s: it has no response topic", m.Topic)}
	}
	if err := checkTopic("the response topic", to); err != nil {
		return skippedError{fmt.Errorf("request on %s: %w", m.Topic, err)}
	}
	reply := mqttclient.Message{Topic: to, QoS: c.QoS}
	reply.CorrelationData = m.CorrelationData
	reply.ContentType = c.ContentType
	switch {
	case c.Message.given:
		reply.Payload = c.Message.bytes()
	case c.Echo:
		reply.Payload = m.Payload
		reply.Text = m.Text
		if reply.ContentType == "" {
			reply.ContentType = m.ContentType
		}
	default:
		out, err := c.execute(ctx, env, &m, to)
		if err != nil {
			return skippedError{fmt.Errorf("request on %s: %w", m.Topic, err)}
		}
		reply.Payload = out
	}
	if _, err := client.Publish(ctx, reply); err != nil {
		var refused *mqttclient.Error
		if errors.As(err, &refused) && refused.Stage == mqttclient.Publishing {
			return skippedError{err}
		}
		return err
	}
	if c.Verbose {
		fmt.Fprintln(env.stdout, m.Topic)
	}
	return nil
}

// execute runs the command. What the request says reaches it only through
// standard input and the environment, never through the shell's parser.
func (c *respondCommand) execute(ctx context.Context, env *environment, m *mqttclient.Message, replyTo string) ([]byte, error) {
	if c.ExecTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(c.ExecTimeout))
		defer cancel()
	}
	shell := []string{"sh", "-c"}
	if runtime.GOOS == "windows" {
		shell = []string{"cmd", "/C"}
	}
	cmd := exec.CommandContext(ctx, shell[0], shell[1], c.Exec) //nolint:gosec // running the operator's command is the point
	cmd.Stdin = bytes.NewReader(m.Payload)
	cmd.Stderr = env.stderr
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(),
		"MQTT_TOPIC="+m.Topic, "MQTT_RESPONSE_TOPIC="+replyTo,
		"MQTT_CONTENT_TYPE="+m.ContentType, "MQTT_QOS="+strconv.Itoa(int(m.QoS)))
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("--exec: %w", err)
	}
	return out, nil
}

// topicFromJSON is a text value of a JSON object, or "".
func topicFromJSON(payload []byte, key string) string {
	var object map[string]any
	if json.Unmarshal(payload, &object) != nil {
		return ""
	}
	s, _ := object[key].(string)
	return s
}

// backlog holds requests that came in faster than they are answered. It has no
// bound: pushing must not wait, as the acknowledgements of our replies come in
// behind the requests. Receive Maximum bounds what is sent at QoS 1 and 2.
type backlog struct {
	mu    sync.Mutex
	queue []mqttclient.Message
	more  chan struct{} // has a value if something was pushed since the last pop
}

func newBacklog() *backlog { return &backlog{more: make(chan struct{}, 1)} }

func (b *backlog) push(m mqttclient.Message) bool {
	b.mu.Lock()
	b.queue = append(b.queue, m)
	b.mu.Unlock()
	select {
	case b.more <- struct{}{}:
	default:
	}
	return true
}

func (b *backlog) pop() (mqttclient.Message, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) == 0 {
		return mqttclient.Message{}, false
	}
	m := b.queue[0]
	b.queue[0] = mqttclient.Message{}
	b.queue = b.queue[1:]
	return m, true
}
