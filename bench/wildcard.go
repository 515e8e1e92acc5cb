package bench

import (
	"context"
	"fmt"

	"hashplus/bench/codec"
	"hashplus/bench/drive"
)

// Wildcard is the scenario `wildcard`.
type Wildcard struct {
	Options
	Filters     int `help:"Filters in all: 80 % exact names, 15 % with +, 5 % with #." default:"100000"`
	Subscribers int `help:"Clients that the filters are divided among." default:"500"`
	Publishers  int `help:"Publishers." default:"50"`
}

// Help is the scenario's page.
func (*Wildcard) Help() string {
	return `Names are site/device/channel. Of every 20 filters 16 are one name each, 3 have + for the device and 1 is site/#, so each message
matches exactly three filters, one of each kind, of three different clients. Publishers walk over all names in scattered order.`
}

// Run carries the scenario out.
func (c *Wildcard) Run(ctx context.Context) error { return c.show(c.measure(ctx)) }

func (c *Wildcard) measure(ctx context.Context) (*Result, error) {
	return c.execute(ctx, wildcard(&c.Options, c.Filters, c.Subscribers, c.Publishers))
}

// The filters of one site: perSite in all.
const (
	exactPerSite = 16
	plusPerSite  = 3
	perSite      = exactPerSite + plusPerSite + 1
)

func wildcard(o *Options, filters, subscribers, publishers int) *scenario {
	s := o.build("wildcard", "delivery", 1, 4)
	sites := max(filters/perSite, 1)
	names := sites * exactPerSite
	exact := max(subscribers*80/100, 1)
	plus := max(subscribers*15/100, 1)
	hash := max(subscribers-exact-plus, 1)
	s.title = fmt.Sprintf("wildcard, %d filters, QoS %d, %s", sites*perSite, o.QoS, o.pressure())
	s.params = map[string]any{"filters": sites * perSite, "names": names, "subscribers": exact + plus + hash, "publishers": publishers}

	// A flow's place among the names is scattered by a stride that is prime to
	// their number, as names/16 sites of 16 share only factors 2 and of sites.
	stride := 7919
	for gcd(stride, names) != 1 {
		stride += 2
	}
	place := func(flow uint32) (site, j int) {
		n := int(uint64(flow) * uint64(stride) % uint64(names))
		return n / exactPerSite, n % exactPerSite
	}
	subs := make([][]codec.Subscription, exact+plus+hash)
	add := func(client int, filter string) {
		subs[client] = append(subs[client], codec.Subscription{Filter: filter, QoS: o.QoS})
	}
	root := "hb/" + s.id + "/w"
	for flow := range uint32(names) {
		site, j := place(flow)
		topic := fmt.Sprintf("%s/%d/%d/%d", root, site, j/plusPerSite, j%plusPerSite)
		s.plan.Flows = append(s.plan.Flows, drive.Flow{Topic: topic, Sender: int32(int(flow) * publishers / names)})
		add((site*exactPerSite+j)%exact, topic)
	}
	for site := range sites {
		for k := range plusPerSite {
			add(exact+(site*plusPerSite+k)%plus, fmt.Sprintf("%s/%d/+/%d", root, site, k))
		}
		add(exact+plus+site%hash, fmt.Sprintf("%s/%d/#", root, site))
	}
	for i := range subs {
		kind := uint32(0)
		if i >= exact {
			kind++
		}
		if i >= exact+plus {
			kind++
		}
		s.client(drive.Client{Subs: subs[i], Flows: uint32(names), StreamBase: kind * uint32(names), Part: i})
	}
	s.plan.Streams = 3 * names
	s.plan.Owner = func(client int, flow uint32) bool {
		site, j := place(flow)
		switch client {
		case (site*exactPerSite + j) % exact, exact + (site*plusPerSite+j%plusPerSite)%plus, exact + plus + site%hash:
			return true
		}
		return false
	}
	for i := range publishers {
		// The first flow whose Sender is i.
		first := (i*names + publishers - 1) / publishers
		next := ((i+1)*names + publishers - 1) / publishers
		s.plan.Senders = append(s.plan.Senders, drive.Sender{
			Client: s.client(drive.Client{Part: i}), FlowBase: uint32(first), Flows: uint32(next - first),
			QoS: o.QoS, Fan: 3, Burst: o.Burst, Window: o.Window,
		})
	}
	return s
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
