package broker

import "strings"

// Reply prefixes: `$reply/{token}/` belongs to one session. Only that session
// may subscribe below it, anybody may publish there. A version 5 client gets
// its prefix as Response Information; any client gets it by subscribing to
// `$reply/self`, as the payload of one message on that topic.
const (
	replyRoot = "$reply/"
	replySelf = "$reply/self"
)

func inReply(filter string) bool { return strings.HasPrefix(filter, replyRoot) || filter == "$reply" }

// replyPrefix returns the session's prefix, made the first time. Its token
// can't be guessed and lives as long as the session.
func (s *session) replyPrefix() string {
	if s.reply == "" {
		s.busy().reply = replyRoot + token() + "/"
		s.rewrite()
	}
	return s.reply
}

// ownsReply reports whether filter, which is in the reply space, is s's to
// subscribe to. A wildcard in place of the token is not: it would match other
// clients' tokens.
func (s *session) ownsReply(filter string) bool {
	return filter == replySelf || s.reply != "" && strings.HasPrefix(filter, s.reply)
}

// tellReply sends the session its prefix.
func (s *session) tellReply(sub *subscription) {
	if s.client == nil {
		return
	}
	m := &message{topic: []byte(replySelf), payload: []byte(s.replyPrefix()), expiryAt: -1, static: true}
	s.client.writePublish(m, 0, false, false, 0, sub.ids)
}
