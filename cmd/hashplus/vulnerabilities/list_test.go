package vulnerabilities

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table into docs/security.md")

// vulnerability is one that another broker had.
type vulnerability struct {
	where string // the broker, and the number of the report
	what  string // happened there
	tests []string
	here  string // what there is to say beside the tests; or why there is none
}

// classes are all of them, by what they have in common.
var classes = []struct {
	name string
	all  []vulnerability
}{
	{"A malformed packet ends the process", []vulnerability{
		{"mochi #501", "truncated SUBSCRIBE", []string{"TestMochi501_TruncatedSubscribe", "TestMochi501_EveryPacketCutAnywhere"}, ""},
		{"mosquitto CVE-2021-34432", "topic of no bytes", []string{"TestCVE_2021_34432_ZeroLengthTopic"}, ""},
		{"mosquitto CVE-2021-28166", "CONNACK from a client", []string{"TestCVE_2021_28166_ConnackFromAClient"}, ""},
		{"mosquitto CVE-2018-12543", "topic that begins with `$`", []string{"TestCVE_2018_12543_DollarTopic"}, ""},
		{"NanoMQ #2192, CVE-2026-21888", "variable byte integer of five bytes", []string{"TestCVE_2026_21888_VariableByteIntegerOfFiveBytes"}, ""},
		{"mochi", "length without end", []string{"TestMochi_LengthWithoutEnd"}, ""},
		{"NanoMQ #2270", "PUBLISH that ends before its packet identifier", []string{"TestNanoMQ2270_TruncatedPublish"}, ""},
		{"coreMQTT CVE-2026-8686", "property beyond its block", []string{"TestCVE_2026_8686_PropertyBeyondItsBounds"}, ""},
		{"mochi, comqtt", "properties read out of the payload, duplicates taken", []string{"TestMochi_PropertiesEndWhereTheySay"}, ""},
		{"mochi, comqtt", "CONNECT and SUBSCRIBE taken that are none, and the reverse", []string{"TestMochi_ConnectIsCheckedAsTheStandardSays"}, ""},
		{"mochi, comqtt", "filters such as `a+/b` and `$share//x` taken; `+/#` does not match `a`", []string{"TestMochi_FiltersThatAreNone"}, ""},
		{"whoever comes next", "packets in any order, changed at random", []string{"TestRandom_PacketsInAnyOrderAndChanged"}, "Longer with `-random 10m`."},
		{"EMQX #2619", "WebSocket text frame", []string{"TestEMQX2619_TextFrame"}, ""},
	}},
	{"Memory before anybody has logged in", []vulnerability{
		{"mochi, comqtt", "five bytes allocate 256 MiB", []string{"TestMochi_FiveBytesAllocate256MiB"}, ""},
		{"mosquitto CVE-2017-7651", "large CONNECT", []string{"TestCVE_2017_7651_LargeConnect"}, ""},
		{"mosquitto CVE-2023-0809", "large first packet that is no CONNECT", []string{"TestCVE_2023_0809_FirstPacketIsNotConnect"}, ""},
	}},
	{"Slow loris", []vulnerability{
		{"mochi, comqtt; mosquitto and FlashMQ if a byte comes now and then", "no deadline before CONNECT", []string{"TestMochi_NoDeadlineBeforeConnect"}, ""},
		{"RMQTT, VerneMQ", "handshake without a deadline", []string{"TestVerneMQ_HandshakeHasADeadline", "TestRMQTT_ExchangeHasADeadline"}, ""},
	}},
	{"WebSocket frames and HTTP headers", []vulnerability{
		{"NATS 2026", "top bit of a 64 bit length", []string{"TestNATS2026_FrameLengthWithItsTopBit"}, ""},
		{"FlashMQ #172", "unmasked frames taken", []string{"TestFlashMQ172_FrameIsNotMasked"}, ""},
		{"what Autobahn finds", "control frames, reserved bits", []string{"TestAutobahn_ControlFramesAndReservedBits"}, "The whole of Autobahn runs in `make nightly`."},
		{"mosquitto, FlashMQ", "header of an upgrade without a limit", []string{"TestMosquitto_UpgradeHeaderIsBounded"}, ""},
	}},
	{"Compression bomb", []vulnerability{
		{"NATS CVE-2026-27571", "inflated without a limit, before login", []string{"TestCVE_2026_27571_CompressionBomb"}, ""},
	}},
	{"QoS 2: leaks and identifiers used twice", []vulnerability{
		{"mosquitto CVE-2023-28366", "duplicates without PUBREL leak", []string{"TestCVE_2023_28366_QoS2DuplicatesWithoutPubrel"}, ""},
		{"EMQX CVE-2026-8741", "delivered twice behind a reconnect", []string{"TestCVE_2026_8741_QoS2OnceBehindAReconnect"}, ""},
		{"mochi #545, #519", "directions share their identifiers", []string{"TestMochi545_DirectionsDoNotShareIdentifiers"}, ""},
		{"RMQTT #456 to #459", "identifier in use", []string{"TestRMQTT459_QoS2IdentifierInUse"}, ""},
		{"mochi, comqtt", "places of the window are lost until nothing comes", []string{"TestMochi_WindowNeverLosesAPlace"}, ""},
		{"mochi", "QoS 0 refused for a full QoS 2 window", []string{"TestMochi_FullWindowIsNoMatterForQoS0"}, ""},
		{"mochi", "what CONNACK announces is not enforced", []string{"TestMochi_AnnouncedLimitsHold"}, ""},
	}},
	{"What is stored", []vulnerability{
		{"hashplus, before its first release", "acknowledged before it was read from the store", []string{"TestStored_AcknowledgedBeforeItIsSentAgain"}, "Found by a fuzzer over sockets."},
	}},
	{"Wills", []vulnerability{
		{"mochi #503", "no ACL for wills", []string{"TestMochi503_WillBypassesTheACL", "TestMochi503_WillBehindARevocation"}, ""},
		{"moquette #689", "no ACL for wills", []string{"TestMoquette689_WillBypassesTheACLIn311"}, ""},
		{"NanoMQ #2330", "will of a client that was not let in", []string{"TestNanoMQ2330_WillOfARefusedClient"}, ""},
		{"mosquitto", "will to `$CONTROL`", []string{"TestMosquitto_WillToControl"}, ""},
	}},
	{"Rights that are not looked at again", []vulnerability{
		{"mosquitto CVE-2018-12546", "retained message comes to whoever subscribes", []string{"TestCVE_2018_12546_RetainedBehindARevocation", "TestCVE_2018_12546_RetainedOfOneWhoMayNotPublishAnyMore"}, ""},
		{"mosquitto CVE-2021-34434", "durable subscription outlives the right to it", []string{"TestCVE_2021_34434_DurableSubscriptionBehindARevocation"}, ""},
		{"NATS advisory 2026-26", "retained and queued messages pass a deny", []string{"TestNATS2026_26_ReplayBypassesADeny"}, ""},
		{"mochi #504", "re-sent to another user with the same client identifier", []string{"TestMochi504_ResendToAnotherUser", "TestMochi504_ResendBehindARevocation"}, ""},
	}},
	{"Wildcards, `$share` and queue groups", []vulnerability{
		{"NATS advisory 2026-18", "queue group passes a deny", []string{"TestNATS2026_18_ShareBypassesADeny"}, ""},
		{"NATS CVE-2026-33217", "names outside of the rules", []string{"TestCVE_2026_33217_NamesOutsideOfTheRules"}, ""},
		{"go-auth", "filter wider than its rule", []string{"TestGoAuth_FilterWiderThanItsRule"}, ""},
		{"CVE-2026-49186", "SUBSCRIBE is not checked", []string{"TestCVE_2026_49186_SubscribeIsNotChecked"}, ""},
		{"mochi", "rule for `a/b` grants `a/b/c/d`", []string{"TestMochi_RuleIsNotAPrefix"}, ""},
		{"mochi", "which rule decides is chance", []string{"TestMochi_DenyWinsInAnyOrder"}, ""},
	}},
	{"Names in patterns", []vulnerability{
		{"mosquitto CVE-2017-7650", "user or client identifier with `+` or `#`", []string{"TestCVE_2017_7650_WildcardsInNames"}, ""},
	}},
	{"`$SYS` for everybody", []vulnerability{
		{"mochi, comqtt", "`$share/g/#`", []string{"TestMochi_ShareGetsSys"}, ""},
		{"aedes #135", "`#`", []string{"TestAedes135_HashGetsSys"}, ""},
		{"VerneMQ #14", "`+/…`", []string{"TestVerneMQ14_PlusGetsSys"}, ""},
		{"HiveMQ CE #751", "what is retained there", []string{"TestHiveMQ751_RetainedSysForWildcards"}, ""},
	}},
	{"Topic aliases", []vulnerability{
		{"EMQX #4147", "alias of an earlier connection", []string{"TestEMQX4147_AliasesEndWithTheConnection"}, ""},
		{"mosquitto_pub #2494, EMQX #6978", "alias that is none", []string{"TestMosquitto2494_AliasThatIsNone"}, ""},
		{"mochi", "alias that was set by a dropped message", []string{"TestMochi_AliasOfADroppedMessage"}, ""},
	}},
	{"Processor and memory by properties and levels", []vulnerability{
		{"mosquitto CVE-2021-41039", "many user properties", []string{"TestCVE_2021_41039_ManyUserProperties"}, ""},
		{"mosquitto CVE-2021-34431", "refused CONNECT leaks", []string{"TestCVE_2021_34431_RefusedConnectLeaksNothing"}, ""},
		{"mochi", "time grows with the square of the levels", []string{"TestMochi_TopicOfManyLevels"}, ""},
		{"mochi, comqtt", "slow subscriber blocks publishers", []string{"TestMochi_SlowSubscriberBlocksNoPublisher"}, ""},
		{"NanoMQ #2350", "reconnects with one identifier leak", []string{"TestNanoMQ2350_ReconnectsLeakNothing"}, ""},
	}},
	{"Topics changed after the check", []vulnerability{
		{"mosquitto #3670", "by a MESSAGE_IN plugin", []string{"TestMosquitto3670_AliasIsResolvedBeforeTheACL"}, "There are no plugins; only an alias changes a topic."},
		{"mosquitto #3671", "by a MESSAGE_OUT plugin", []string{"TestMosquitto3671_OutgoingAliasIsOfWhatWasChecked"}, "The same."},
	}},
	{"Tokens", []vulnerability{
		{"CVE-2015-9235, CVE-2016-5431, CVE-2018-0114", "the token says how it is to be checked, or by which key", []string{"TestCVE_2015_9235_TokenChoosesItsAlgorithm"}, ""},
		{"arena-web-core #862", "taken after its end", []string{"TestArena862_TokenAfterItsEnd"}, ""},
		{"RabbitMQ #2922", "the connection outlives it", []string{"TestRabbitMQ2922_ConnectionOutlivesItsToken"}, ""},
		{"clients of JWKS", "tokens of unknown keys flood the server of the keys", []string{"TestJWKS_UnknownKeysDoNotFloodItsServer"}, ""},
	}},
	{"Secrets in logs", []vulnerability{
		{"many", "passwords, tokens, headers and queries in the log", []string{"TestSecrets_StayOutOfTheLog"}, ""},
	}},
	{"Defaults", []vulnerability{
		{"comqtt admin/admin, NanoMQ and EMQX admin/public", "login that comes with the program", []string{"TestDefaults_NoLoginComesWithTheProgram"}, ""},
		{"the same", "dashboard or API that nobody asked for", []string{"TestDefaults_NothingListensThatIsNotNamed", "TestDefaults_OtherMachinesNeedALogin"}, ""},
	}},
}

// document is where the table stands, between two lines.
const (
	document = "../../../docs/security.md"
	begin    = "<!-- begin: written by go test ./cmd/hashplus/vulnerabilities -run TestList -update -->\n"
	end      = "<!-- end -->\n"
)

// TestList_IsInTheDocumentAndHasEveryTest holds list, tests and document
// together.
func TestList_IsInTheDocumentAndHasEveryTest(t *testing.T) {
	known := testsIn(t, "../../..")
	listed := map[string]bool{}
	var b strings.Builder
	b.WriteString("\n| where | what happened there | tests |\n|---|---|---|\n")
	for _, class := range classes {
		fmt.Fprintf(&b, "| **%s** | | |\n", class.name)
		for _, v := range class.all {
			var tests []string
			for _, name := range v.tests {
				path, ok := known[name]
				if !ok {
					t.Errorf("%s: there is no %s", v.where, name)
				}
				listed[name] = true
				tests = append(tests, fmt.Sprintf("[%s](../%s)", name, path))
			}
			if v.here != "" {
				tests = append(tests, v.here)
			}
			if len(tests) == 0 {
				t.Errorf("%s: no test and no reason", v.where)
			}
			fmt.Fprintf(&b, "| %s | %s | %s |\n", v.where, v.what, strings.Join(tests, "<br>"))
		}
	}
	b.WriteString("\n")
	for name, path := range known {
		if filepath.Dir(path) == "cmd/hashplus/vulnerabilities" && !strings.HasPrefix(name, "TestList_") && !listed[name] {
			t.Errorf("%s is not in the list", name)
		}
	}
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	table, after, ok2 := strings.Cut(rest, end)
	switch {
	case !ok || !ok2:
		t.Fatalf("%s has no place for the table", document)
	case table == b.String():
	case *update:
		if err := os.WriteFile(document, []byte(before+begin+b.String()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("the table in %s is not up to date: run this test with -update", document)
	}
}

var testFunction = regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)

// testsIn are the tests below a folder, with their files.
func testsIn(t *testing.T, root string) map[string]string {
	t.Helper()
	tests := map[string]string{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && slices.Contains([]string{".git", "node_modules", "testdata"}, e.Name()) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range testFunction.FindAllSubmatch(text, -1) {
			relative, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			tests[string(m[1])] = filepath.ToSlash(relative)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tests
}
