package auth

import (
	"slices"
	"strings"
	"unique"

	"github.com/golang-jwt/jwt/v5"
)

// tokenGrounds are what a consent to a token rests on, beside its end: what other
// settings may not let pass any more. Most clients share theirs.
type tokenGrounds struct {
	signer      fingerprint
	issuer      string
	audiences   string // each behind a U+0000
	everlasting bool
	from        TokenSource
	names       claimNames // by which the token was read
}

type claimNames struct{ username, clientID, publish, subscribe string }

func (o *JWTOptions) claimNames() claimNames {
	return claimNames{o.UsernameClaim, o.ClientIDClaim, o.PublishClaim, o.SubscribeClaim}
}

// signerOf is the one of keys that has signed the token, which has been verified by
// one of them.
func signerOf(t *jwt.Token, keys []key) (print fingerprint) {
	signed := t.Raw[:strings.LastIndexByte(t.Raw, '.')]
	for i, k := range keys {
		if i == len(keys)-1 || t.Method.Verify(signed, t.Signature, k.material) == nil {
			return k.print
		}
	}
	return print
}

func (j *JWT) grounds(claims jwt.MapClaims, signer fingerprint, from TokenSource) any {
	issuer, _ := claims.GetIssuer()      // another type is no issuer
	audiences, _ := claims.GetAudience() // nor an audience
	_, ends := claims["exp"]
	g := tokenGrounds{signer: signer, issuer: issuer, everlasting: !ends, from: from, names: j.o.claimNames()}
	for _, a := range audiences {
		g.audiences += "\x00" + a
	}
	return unique.Make(g)
}

// Holds implements Voucher: the key that signed the token is still known, and what
// is said of issuer, audience, exp, and the places of tokens lets it pass. A token of
// which other claims are read now would grant something else. While a set of keys
// has not been had yet its keys count as known.
func (j *JWT) Holds(_ string, grounds any) (mine, holds bool) {
	handle, mine := grounds.(unique.Handle[tokenGrounds])
	if !mine {
		return false, false
	}
	g := handle.Value()
	switch {
	case j.o.Issuer != "" && g.issuer != j.o.Issuer, g.everlasting && !j.o.Everlasting, g.names != j.o.claimNames():
	case g.from != inAuth && !slices.Contains(j.o.Sources, g.from):
	case len(j.o.Audiences) > 0 && !slices.ContainsFunc(j.o.Audiences, func(a string) bool {
		return slices.Contains(strings.Split(g.audiences, "\x00"), a)
	}):
	default:
		return true, slices.ContainsFunc(j.o.Keys, func(s KeySource) bool { return s.has(g.signer) || s.empty() })
	}
	return true, false
}
