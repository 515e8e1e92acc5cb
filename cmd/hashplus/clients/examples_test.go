package clients

import (
	"bufio"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hashplus/cmd/hashplus/launch"
)

// The examples are those of the documentation, run as a reader runs them.

func TestExamples_SensorSubscriberPrintsWhatSensorsPublish(t *testing.T) {
	t.Parallel()
	example := exec.Command(debianPython(t), filepath.Join(examples, "sensor_subscriber.py"), shared.ws)
	errors := new(launch.Log)
	example.Stderr = errors
	out, err := example.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := example.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	defer func() {
		example.Process.Kill()
		for range lines {
		}
		example.Wait() // killed
	}()
	// Other tests publish to sensor/# too.
	awaitLine := func(want string) {
		t.Helper()
		deadline := time.After(patience)
		for {
			select {
			case line, ok := <-lines:
				if !ok {
					t.Fatalf("the example ended before it printed %q: %s", want, errors)
				}
				if strings.HasPrefix(line, want) {
					return
				}
			case <-deadline:
				t.Fatalf("the example did not print %q: %s", want, errors)
			}
		}
	}
	awaitLine("subscribed to sensor/#")
	sensor, _ := kind{library: libraries()[1], version: v5, scheme: "mqtt"}.dial(t, setup{})
	topic := "sensor/" + room(t) + "/temperature"
	mustPublish(t, sensor, text(topic, 1, "21.5 °C"))
	awaitLine(topic + " 21.5 °C")
}

func TestExamples_BrowserPagePublishesAndReceives(t *testing.T) {
	t.Parallel()
	d, page := browser(t), room(t)
	do := func(op string, args map[string]any, result any) {
		t.Helper()
		args["page"] = page
		if err := d.call("", op, args, result); err != nil {
			t.Fatal(err)
		}
	}
	do("open", map[string]any{"url": site(t) + "/examples/browser.html?url=" + url.QueryEscape(shared.ws)}, nil)
	defer do("close", map[string]any{}, nil)
	do("wait", map[string]any{"script": `document.querySelector('#state').textContent === 'connected'`}, nil)

	watcher, _ := kind{library: libraries()[1], version: v5, scheme: "mqtt"}.dial(t, setup{})
	topic := "sensor/" + room(t)
	mustSubscribe(t, watcher, subscription{Filter: topic, QoS: 1})
	do("fill", map[string]any{"selector": "#topic", "text": topic}, nil)
	do("fill", map[string]any{"selector": "#message", "text": "<b>19 °C</b>"}, nil)
	do("click", map[string]any{"selector": "#publish"}, nil)
	if got := payloads(watcher.inbox().take(t, 1)); got != "<b>19 °C</b>" {
		t.Errorf("the page published %q", got)
	}
	do("wait", map[string]any{"script": `document.querySelector('#log').textContent.includes('` + topic + ` <b>19 °C</b>')`}, nil)
	mustPublish(t, watcher, text(topic, 1, "from elsewhere"))
	do("wait", map[string]any{"script": `document.querySelector('#log').textContent.includes('` + topic + ` from elsewhere')`}, nil)
}
