package bench

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// style gives a plot the reader's light or dark scheme. The colours are told
// apart by the colour-blind too, and have contrast on either background.
const style = `<style>
text{font:12px system-ui,sans-serif;fill:#24292f}.title{font-size:14px;font-weight:600}.dim{fill:#57606a}
.axis{stroke:#57606a;stroke-width:1}.grid{stroke:#d0d7de;stroke-width:1}.range{stroke:#24292f;stroke-width:1}
.f0{fill:#0969da}.f1{fill:#bc4c00}.f2{fill:#1a7f37}.f3{fill:#8250df}.f4{fill:#bf3989}.f5{fill:#6e7781}
.l0{stroke:#0969da}.l1{stroke:#bc4c00}.l2{stroke:#1a7f37}.l3{stroke:#8250df}.l4{stroke:#bf3989}.l5{stroke:#6e7781}
polyline{fill:none;stroke-width:2}
@media (prefers-color-scheme:dark){
text{fill:#e6edf3}.dim{fill:#8d96a0}.axis{stroke:#8d96a0}.grid{stroke:#30363d}.range{stroke:#e6edf3}
.f0{fill:#58a6ff}.f1{fill:#f0883e}.f2{fill:#3fb950}.f3{fill:#bc8cff}.f4{fill:#f778ba}.f5{fill:#8d96a0}
.l0{stroke:#58a6ff}.l1{stroke:#f0883e}.l2{stroke:#3fb950}.l3{stroke:#bc8cff}.l4{stroke:#f778ba}.l5{stroke:#8d96a0}}
</style>
`

// colors is how many colours style has; further series repeat them.
const (
	colors = 6
	grey   = 5 // for what is no broker
)

// canvas collects the elements of a plot.
type canvas struct{ strings.Builder }

func (c *canvas) open(width, height int, title string) {
	fmt.Fprintf(c, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="%s">`+"\n",
		width, height, width, height, html.EscapeString(title))
	c.WriteString(style)
	c.text(16, 24, "title", "start", title)
}

func (c *canvas) text(x, y float64, class, anchor, text string) {
	fmt.Fprintf(c, `<text x="%.1f" y="%.1f" class="%s" text-anchor="%s">%s</text>`+"\n", x, y, class, anchor, html.EscapeString(text))
}

func (c *canvas) line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(c, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>`+"\n", x1, y1, x2, y2, class)
}

func (c *canvas) rect(x, y, w, h float64, class string) {
	fmt.Fprintf(c, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" class="%s"/>`+"\n", x, y, w, h, class)
}

// legend writes the names in a row at y.
func (c *canvas) legend(y float64, names []string, color func(i int) int) {
	x := 16.0
	for i, n := range names {
		c.rect(x, y-9, 10, 10, fmt.Sprintf("f%d", color(i)%colors))
		c.text(x+14, y, "dim", "start", n)
		x += 14 + 7.2*float64(len([]rune(n))) + 18
	}
}

func (c *canvas) done() string {
	c.WriteString("</svg>\n")
	return c.String()
}

// barChart is horizontal bars in groups, each group scaled to its own longest
// bar, as the groups' units and sizes differ.
type barChart struct {
	title  string
	series []string
	groups []barGroup
}

// barGroup has one value per series; a NaN median is no bar.
type barGroup struct {
	label  string
	values []spreadOf
}

func (b *barChart) svg() string {
	const width, bar, left, right = 760, 16, 16.0, 130.0
	height := 64
	for range b.groups {
		height += 28 + bar*len(b.series)
	}
	var c canvas
	c.open(width, height, b.title)
	c.legend(44, b.series, func(i int) int { return i })
	y := 70.0
	for _, g := range b.groups {
		c.text(left, y, "text", "start", g.label)
		y += 6
		longest := 0.0
		for _, v := range g.values {
			if !math.IsNaN(v.median) {
				longest = math.Max(longest, v.max)
			}
		}
		for i, v := range g.values {
			if math.IsNaN(v.median) || longest == 0 {
				c.text(left, y+bar-4, "dim", "start", "–")
				y += bar
				continue
			}
			scale := (width - left - right) / longest
			c.rect(left, y+1, v.median*scale, bar-3, fmt.Sprintf("f%d", i%colors))
			if v.max > v.min {
				c.line(left+v.min*scale, y+bar/2, left+v.max*scale, y+bar/2, "range")
			}
			c.text(left+v.max*scale+6, y+bar-4, "dim", "start", short(v.median))
			y += bar
		}
		y += 22
	}
	return c.done()
}

// lineChart is lines over a common pair of axes.
type lineChart struct {
	title, x    string
	lines       []chartLine
	logX, logY  bool
	percentiles bool // x is a percentile, spread out towards 100
}

type chartLine struct {
	name   string
	color  int
	points [][2]float64 // ascending in x
}

func (l *lineChart) svg() string {
	const width, height, left, right, top, bottom = 760.0, 400.0, 64.0, 24.0, 60.0, 44.0
	var c canvas
	c.open(int(width), int(height), l.title)
	names := make([]string, len(l.lines))
	for i, ln := range l.lines {
		names[i] = ln.name
	}
	c.legend(44, names, func(i int) int { return l.lines[i].color })

	lo, hi := math.Inf(1), math.Inf(-1)
	maxX, minX := 0.0, math.Inf(1)
	for _, ln := range l.lines {
		for _, p := range ln.points {
			lo, hi = math.Min(lo, p[1]), math.Max(hi, p[1])
			maxX, minX = math.Max(maxX, l.along(p[0])), math.Min(minX, l.along(p[0]))
		}
	}
	yTicks := l.ticksY(&lo, &hi)
	if !l.percentiles && !l.logX {
		minX = 0
	}
	px := func(x float64) float64 { return left + (width-left-right)*(l.along(x)-minX)/math.Max(maxX-minX, 1e-9) }
	py := func(y float64) float64 {
		f := (y - lo) / math.Max(hi-lo, 1e-9)
		if l.logY {
			f = math.Log(y/lo) / math.Max(math.Log(hi/lo), 1e-9)
		}
		return height - bottom - (height-top-bottom)*f
	}
	for _, t := range yTicks {
		c.line(left, py(t), width-right, py(t), "grid")
		c.text(left-6, py(t)+4, "dim", "end", short(t))
	}
	for _, t := range l.ticksX(minX, maxX) {
		c.line(px(t), height-bottom, px(t), height-bottom+4, "axis")
		c.text(px(t), height-bottom+18, "dim", "middle", l.mark(t))
	}
	c.line(left, height-bottom, width-right, height-bottom, "axis")
	c.text((left+width-right)/2, height-8, "dim", "middle", l.x)
	for _, ln := range l.lines {
		fmt.Fprintf(&c, `<polyline class="l%d" points="`, ln.color%colors)
		for i, p := range ln.points {
			if i > 0 {
				c.WriteByte(' ')
			}
			fmt.Fprintf(&c, "%.1f,%.1f", px(p[0]), py(p[1]))
		}
		c.WriteString(`"/>` + "\n")
	}
	return c.done()
}

// along is the place of x on the axis. 100 % has a place too, one step after
// 99.99 %.
func (l *lineChart) along(x float64) float64 {
	switch {
	case l.logX:
		return math.Log10(x)
	case !l.percentiles:
		return x
	}
	return -math.Log10(1 - math.Min(x, 99.999)/100)
}

// mark is the text at x on the axis.
func (l *lineChart) mark(x float64) string {
	if !l.percentiles {
		return short(x)
	}
	if x >= 100 {
		return "max"
	}
	return strconv.FormatFloat(x, 'g', -1, 64) // 99.99 is not 100
}

func (l *lineChart) ticksX(minX, maxX float64) (t []float64) {
	if l.percentiles {
		for _, p := range []float64{10, 50, 90, 99, 99.9, 99.99, 100} {
			if l.along(p) >= minX && l.along(p) <= maxX {
				t = append(t, p)
			}
		}
		return t
	}
	if l.logX {
		for p := math.Ceil(minX); p <= maxX*1.0001; p++ {
			t = append(t, math.Pow(10, p))
		}
		return t
	}
	step := niceStep(maxX / 6)
	for x := 0.0; x <= maxX*1.0001; x += step {
		t = append(t, x)
	}
	return t
}

// ticksY rounds the range outwards and returns the marks in it.
func (l *lineChart) ticksY(lo, hi *float64) (t []float64) {
	if l.logY {
		*lo = math.Pow(10, math.Floor(math.Log10(*lo)))
		*hi = math.Pow(10, math.Ceil(math.Log10(math.Max(*hi, *lo*1.01))))
		for y := *lo; y <= *hi*1.001; y *= 10 {
			t = append(t, y)
		}
		return t
	}
	step := niceStep(*hi / 5)
	*lo, *hi = 0, math.Ceil(*hi/step)*step
	for y := 0.0; y <= *hi*1.001; y += step {
		t = append(t, y)
	}
	return t
}

// niceStep is the next 1, 2 or 5 times a power of ten.
func niceStep(x float64) float64 {
	if x <= 0 {
		return 1
	}
	p := math.Pow(10, math.Floor(math.Log10(x)))
	for _, m := range []float64{1, 2, 5} {
		if x <= m*p*1.0001 {
			return m * p
		}
	}
	return 10 * p
}

// short writes a number in few characters.
func short(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.3gM", v/1e6)
	case v >= 1e4:
		return fmt.Sprintf("%.3gk", v/1e3)
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}
