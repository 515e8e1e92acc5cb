package main

import (
	"fmt"
	"io"
	"strings"

	"hashplus/broker"
	"hashplus/broker/auth"
	"hashplus/topic"
)

// aclCommand looks into a file with access rules.
type aclCommand struct {
	Check    aclCheck    `cmd:"" help:"Say whether a client may publish to a topic or subscribe to a filter, and which rule decides. Exit code 0: it may; 5: it may not."`
	Validate aclValidate `cmd:"" help:"Check the file. Exit code 2: it has faults, which are all named."`
}

// aclFile is the file that both commands read.
type aclFile struct {
	ACL string `name:"acl" required:"" placeholder:"FILE" help:"The file with the access rules, as for serve --acl."`
}

func (f *aclFile) load() (*auth.ACL, error) {
	acl, err := auth.LoadACL(f.ACL)
	if err != nil {
		return nil, usageError{err}
	}
	return acl, nil
}

// aclValidate checks a file.
type aclValidate struct {
	aclFile
}

// Run reports every fault of the file, or how many rules it has.
func (c *aclValidate) Run(env *environment) error {
	acl, err := c.load()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.stdout, "%s: valid, %d rules\n", c.ACL, acl.Rules())
	return err
}

// aclCheck asks the rules what they would answer a client.
type aclCheck struct {
	aclFile
	User           string   `placeholder:"NAME" help:"The client's username. Without it the client is anonymous."`
	Client         string   `placeholder:"ID" default:"client" help:"The client identifier."`
	ClaimPublish   []string `placeholder:"FILTER" help:"What a token of the client lets it publish to. Repeatable."`
	ClaimSubscribe []string `placeholder:"FILTER" help:"What a token of the client lets it subscribe to. Repeatable."`
	Action         string   `arg:"" enum:"publish,subscribe" help:"publish or subscribe."`
	Topic          string   `arg:"" help:"The topic, or for subscribe the filter; $$share/GROUP/FILTER is one as well."`
}

// Run prints the answer and the rule that decides.
func (c *aclCheck) Run(env *environment) error {
	acl, err := c.load()
	if err != nil {
		return err
	}
	claims, err := auth.NewClaims(c.ClaimPublish, c.ClaimSubscribe)
	if err != nil {
		return usagef("claim: %v", err)
	}
	id := &broker.Identity{ClientID: c.Client, Username: c.User, Data: claims}
	e, err := c.explain(acl, id)
	if err != nil {
		return err
	}
	if err := c.print(env.stdout, e); err != nil {
		return err
	}
	if !e.Allowed {
		return deniedError{}
	}
	return nil
}

// explain asks the rules, as the broker would.
func (c *aclCheck) explain(acl *auth.ACL, id *broker.Identity) (auth.Explanation, error) {
	if c.Action == "publish" {
		if err := topic.CheckName(c.Topic); err != nil {
			return auth.Explanation{}, usagef("the topic %q is not valid: %v", c.Topic, err)
		}
		return acl.ExplainPublish(id, c.Topic), nil
	}
	_, filter, shared, err := topic.ParseShare(c.Topic)
	if !shared {
		filter = c.Topic
	}
	if err == nil {
		err = topic.CheckFilter(filter)
	}
	if err != nil {
		return auth.Explanation{}, usagef("the filter %q is not valid: %v", c.Topic, err)
	}
	return acl.ExplainSubscribe(id, filter), nil
}

// print writes the answer, and below it the rules.
func (c *aclCheck) print(w io.Writer, e auth.Explanation) error {
	var b strings.Builder
	answer, may, partly := "denied", "may not", "a part of it is allowed by "
	if e.Allowed {
		answer, may, partly = "allowed", "may", "but not what is denied by "
	}
	who := "anonymous client"
	if c.User != "" {
		who = fmt.Sprintf("user %q, client", c.User)
	}
	fmt.Fprintf(&b, "%s: %s %q %s %s to %s\n", answer, who, c.Client, may, c.Action, c.Topic)
	if e.Rule != "" {
		fmt.Fprintf(&b, "  %s\n", e.Rule)
	} else {
		fmt.Fprintf(&b, "  no rule covers it\n")
	}
	for _, p := range e.Partly {
		fmt.Fprintf(&b, "  %s%s\n", partly, p)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// deniedError makes the exit code of an answer that is no; the answer says all.
type deniedError struct{}

func (deniedError) Error() string { return "denied" }
