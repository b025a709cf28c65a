package main

import (
	"fmt"
	"strings"
)

// A script is one side of a call, as sipp plays it: one step in each string.
//
//	"> INVITE sdp"       sends a request, here with our session description
//	"> 183 rel sdp"      responds to the latest INVITE, reliably
//	"> 200"              responds to the latest other request
//	"< 486"              waits for a response
//	"< INVITE sdp"       waits for a request with the session description of the other side
//	"< INVITE nosdp"     waits for one without any
//	"wait 300"           waits, in milliseconds
//	"of INVITE"          what follows is about the INVITE, not about a later request
//	"notify 200"         reports a status of a transfer
//
// Other bodies are "dtmf", key 2, and "nomedia", a session description without m= lines.
// What follows a | is a header line to send, or a regular expression for what arrives.
type script struct {
	name  string // "caller" or "callee"
	other string
	// listens is true for a side that waits for a call.
	listens bool
	steps   []string

	text strings.Builder
	seq  int
	// method is that of the latest request we have sent, or received.
	sent, received string
	// inviteSeq is the CSeq of our latest INVITE. refused is true once it is refused.
	inviteSeq      int
	refused        bool
	version, prack int
}

// newScript returns the scenario that plays the steps.
func newScript(name, other string, listens bool, steps []string) string {
	s := &script{name: name, other: other, listens: listens, steps: steps}
	s.text.WriteString("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE scenario SYSTEM \"sipp.dtd\">\n<scenario name=\"" + name + "\">\n")
	if !listens {
		s.nop(`<assignstr assign_to="mine" value="&lt;sip:`+name+`@[local_ip]:[local_port]&gt;;tag=`+name+`[pid]-[call_number]"/>`,
			`<assignstr assign_to="theirs" value="&lt;sip:`+other+`@[remote_ip]:[remote_port]&gt;"/>`,
			`<assignstr assign_to="target" value="sip:`+other+`@[remote_ip]:[remote_port]"/>`)
	}
	for _, step := range steps {
		s.step(step)
	}
	var used []string // sipp refuses a variable that is assigned only, and one that is not there
	for _, name := range []string{"_", "mine", "theirs", "target", "invvia", "invcseq", "rseq"} {
		if strings.Contains(s.text.String(), `="`+name+`"`) || strings.Contains(s.text.String(), `="_,`+name+`"`) || name == "_" && strings.Contains(s.text.String(), `="_,`) {
			used = append(used, name)
		}
	}
	s.text.WriteString("<Reference variables=\"" + strings.Join(used, ",") + "\"/>\n</scenario>\n")
	return s.text.String()
}

func (s *script) nop(actions ...string) {
	s.text.WriteString("<nop><action>" + strings.Join(actions, "\n") + "</action></nop>\n")
}

func (s *script) step(step string) {
	step, extra, _ := strings.Cut(step, " | ")
	words := strings.Fields(step)
	has := func(word string) bool { return strings.Contains(" "+step+" ", " "+word+" ") }
	switch {
	case words[0] == "of":
		s.sent, s.received = words[1], words[1]
	case words[0] == "notify":
		s.notify(words[1])
	case words[0] == "wait":
		s.text.WriteString("<pause milliseconds=\"" + words[1] + "\"/>\n")
	case words[0] == ">" && words[1][0] <= '9':
		s.respond(words[1], words[len(words)-1], has("rel"), extra)
	case words[0] == ">":
		s.request(words[1], words[len(words)-1], extra)
	case words[1][0] <= '9':
		s.expect(words[1], has("sdp"), has("nosdp"), extra)
	default:
		s.await(words[1], has("sdp"), has("nosdp"), extra)
	}
}

// send writes a message, repeated until its response if it needs that.
func (s *script) send(repeated bool, head []string, content, extra string) {
	again := ""
	if repeated {
		again = ` retrans="500"`
	}
	if extra != "" {
		head = append(head, extra)
	}
	body := ""
	switch content {
	case "sdp", "nomedia":
		s.version++
		head = append(head, "Content-Type: application/sdp")
		body = fmt.Sprintf("\nv=0\no=%s 1 %d IN IP4 [local_ip]\ns=-\nc=IN IP4 [local_ip]\nt=0 0\n", s.name, s.version)
		if content == "sdp" {
			body += "m=audio 16000 RTP/AVP 0\n"
		}
	case "dtmf":
		head = append(head, "Content-Type: application/dtmf-relay")
		body = "\nSignal=2\nDuration=160\n"
	}
	head = append(head, "Content-Length: [len]")
	s.text.WriteString("<send" + again + "><![CDATA[\n" + strings.Join(head, "\n") + "\n" + body + "\n]]></send>\n")
}

func (s *script) request(method, content, extra string) {
	branch, to := "[branch]", "[$theirs]"
	seq := s.seq + 1
	switch {
	case method == "CANCEL" || method == "ACK" && s.refused:
		seq, branch = s.inviteSeq, s.branch()
	case method == "ACK":
		seq = s.inviteSeq
	default:
		s.seq = seq
	}
	if method == "INVITE" {
		s.inviteSeq, s.refused = seq, false
		branch = s.branch()
	}
	head := []string{
		method + " [$target] SIP/2.0", "Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=" + branch,
		"From: [$mine]", "To: " + to, "Call-ID: [call_id]", fmt.Sprintf("CSeq: %d %s", seq, method), "Max-Forwards: 70",
	}
	switch method {
	case "INVITE", "UPDATE":
		head = append(head, "Contact: <sip:"+s.name+"@[local_ip]:[local_port]>", "Supported: 100rel", "Allow: INVITE, ACK, CANCEL, BYE, PRACK, UPDATE, INFO, MESSAGE, REFER, NOTIFY")
	case "PRACK":
		head = append(head, fmt.Sprintf("RAck: [$rseq] %d INVITE", s.inviteSeq))
	}
	s.send(method != "ACK", head, content, extra)
	if method != "ACK" {
		s.sent = method
	}
}

func (s *script) branch() string {
	return fmt.Sprintf("z9hG4bK-%s-%d-[pid]-[call_number]", s.name, s.inviteSeq)
}

// respond answers the latest INVITE, or another request if that came later.
func (s *script) respond(status, content string, reliable bool, extra string) {
	invite := s.received == "INVITE"
	head := []string{"SIP/2.0 " + status + " Scripted", "[last_Via:]", "[last_From:]", "[last_To:]", "[last_Call-ID:]", "[last_CSeq:]"}
	if invite {
		head = []string{"SIP/2.0 " + status + " Scripted", "Via: [$invvia]", "From: [$theirs]", "To: [$mine]", "Call-ID: [call_id]", "CSeq: [$invcseq]"}
	}
	if status[0] == '1' || status[0] == '2' {
		head = append(head, "Contact: <sip:"+s.name+"@[local_ip]:[local_port]>", "Allow: INVITE, ACK, CANCEL, BYE, PRACK, UPDATE, INFO, MESSAGE, REFER, NOTIFY")
	}
	if reliable {
		s.prack++
		head = append(head, "Require: 100rel", fmt.Sprintf("RSeq: %d", s.prack))
	}
	s.send(reliable || invite && status[0] != '1', head, content, extra)
}

// notify reports the status of a transfer (RFC 3515 2.4.5).
func (s *script) notify(status string) {
	state := "active;expires=60"
	if status >= "200" {
		state = "terminated;reason=noresource"
	}
	s.seq++
	s.sent = "NOTIFY"
	s.text.WriteString("<send retrans=\"500\"><![CDATA[\n" + strings.Join([]string{
		"NOTIFY [$target] SIP/2.0", "Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]", "From: [$mine]", "To: [$theirs]",
		"Call-ID: [call_id]", fmt.Sprintf("CSeq: %d NOTIFY", s.seq), "Max-Forwards: 70", "Contact: <sip:" + s.name + "@[local_ip]:[local_port]>",
		"Event: refer", "Subscription-State: " + state, "Content-Type: message/sipfrag", "Content-Length: [len]", "", "SIP/2.0 " + status + " Scripted", "",
	}, "\n") + "\n]]></send>\n")
}

// expect waits for a response to our latest request.
func (s *script) expect(status string, sdp, noSDP bool, extra string) {
	actions := s.checks(sdp, noSDP, extra)
	if s.sent == "INVITE" {
		s.text.WriteString("<recv response=\"100\" optional=\"true\"/>\n")
		if !s.listens && s.inviteSeq == 1 && status < "300" {
			actions = append(actions, `<ereg regexp="[^ ].*" search_in="hdr" header="To:" check_it="true" assign_to="theirs"/>`)
		}
		if status < "300" {
			actions = append(actions, `<ereg regexp="&lt;(sip:[^&gt;]*)" search_in="hdr" header="Contact:" check_it="true" assign_to="_,target"/>`)
		}
		if status < "200" {
			actions = append(actions, `<ereg regexp="[0-9]+" search_in="hdr" header="RSeq:" assign_to="rseq"/>`)
		}
		s.refused = status >= "300"
	}
	if s.refused && s.sent == "INVITE" {
		actions = append(actions, `<ereg regexp="[^ ].*" search_in="hdr" header="To:" check_it="true" assign_to="theirs"/>`)
	}
	s.text.WriteString("<recv response=\"" + status + "\">" + action(actions) + "</recv>\n")
}

// await waits for a request.
func (s *script) await(method string, sdp, noSDP bool, extra string) {
	actions := s.checks(sdp, noSDP, extra)
	if method == "INVITE" {
		actions = append(actions,
			`<ereg regexp="[^ ].*" search_in="hdr" header="Via:" check_it="true" assign_to="invvia"/>`,
			`<ereg regexp="[^ ].*" search_in="hdr" header="CSeq:" check_it="true" assign_to="invcseq"/>`,
			`<ereg regexp="&lt;(sip:[^&gt;]*)" search_in="hdr" header="Contact:" check_it="true" assign_to="_,target"/>`)
		if s.received == "" {
			actions = append(actions,
				`<ereg regexp="[^ ].*" search_in="hdr" header="From:" check_it="true" assign_to="theirs"/>`,
				`<ereg regexp="[^ ].*" search_in="hdr" header="To:" check_it="true" assign_to="mine"/>`,
				`<assignstr assign_to="mine" value="[$mine];tag=`+s.name+`[pid]-[call_number]"/>`)
		}
	}
	if method != "ACK" {
		s.received = method
	}
	s.text.WriteString("<recv request=\"" + method + "\">" + action(actions) + "</recv>\n")
}

// checks checks whose session description a message has.
func (s *script) checks(sdp, noSDP bool, extra string) []string {
	var list []string
	if sdp {
		list = append(list, `<ereg regexp="[[:space:]]o=`+s.other+` 1 " search_in="msg" check_it="true" assign_to="_"/>`)
	}
	if noSDP {
		list = append(list, `<ereg regexp="[[:space:]]o=" search_in="msg" check_it_inverse="true" assign_to="_"/>`)
	}
	if extra != "" {
		list = append(list, `<ereg regexp="`+strings.NewReplacer("<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace(extra)+`" search_in="msg" check_it="true" assign_to="_"/>`)
	}
	return list
}

func action(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return "<action>" + strings.Join(list, "\n") + "</action>"
}
