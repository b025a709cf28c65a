import JsSIP from "jssip";

// offerToReceiveAudio is for a call that comes without an offer: else JsSIP's own is empty.
const media = {
  mediaConstraints: { audio: true, video: false }, pcConfig: { iceServers: [] },
  rtcOfferConstraints: { offerToReceiveAudio: true },
};
const byId = (id) => document.getElementById(id);
const name = new URLSearchParams(location.search).get("name") || "browser";
const server = `wss://${location.hostname}:${document.body.dataset.port}`;
const ua = new JsSIP.UA({
  sockets: [new JsSIP.WebSocketInterface(server)], uri: `sip:${name}@${location.hostname}`, register: true,
});
let session;

// show says where the phone is, and enables the buttons that make sense there.
function show(state, ...buttons) {
  byId("state").textContent = state;
  for (const id of ["call", "answer", "hold", "resume", "hangup"]) byId(id).disabled = !buttons.includes(id);
}

const ready = (why) => show(why ? `ready (${why})` : "ready", "call");

// talk shows the call as it is: either side may hold it.
function talk() {
  const held = session.isOnHold(), peer = session.remote_identity.uri.user;
  const state = held.local ? "holding" : held.remote ? "held by" : "in a call with";
  show(`${state} ${peer}`, held.local ? "resume" : "hold", "hangup");
}

// change holds or resumes, once no other change of the call is on its way. JsSIP tells of ours
// before the peer has agreed, so the page waits for the answer.
function change(call, how) {
  if (call !== session) return;
  if (call[how]({}, () => { if (call === session) talk(); })) show("one moment", "hangup");
  else setTimeout(change, 100, call, how);
}

// hear plays what the peer sends.
function hear() {
  byId("audio").srcObject = new MediaStream(session.connection.getReceivers().map((r) => r.track));
  talk();
}

async function count() {
  const call = session;
  if (!call?.connection) return;
  for (const s of (await call.connection.getStats()).values()) {
    if (s.type === "inbound-rtp" && call === session) byId("received").textContent = s.packetsReceived;
  }
}

ua.on("registered", () => { if (!session) ready(); });
ua.on("registrationFailed", (e) => show(`not registered: ${e.cause}`));
ua.on("disconnected", () => { if (!session) show("not connected"); });

ua.on("newRTCSession", (e) => {
  if (session) { // one call at a time
    if (e.originator === "remote") e.session.terminate({ status_code: 486 });
    return;
  }
  session = e.session;
  byId("received").textContent = 0;
  const peer = session.remote_identity.uri.user;
  if (e.originator === "remote") show(`${peer} calls`, "answer", "hangup");
  else show(`calling ${peer}`, "hangup");
  const over = (end) => { session = undefined; ready(end.cause === "Terminated" ? "" : end.cause); };
  session.on("confirmed", hear);
  for (const event of ["hold", "unhold"]) {
    session.on(event, (e) => { if (e.originator === "remote") talk(); });
  }
  session.on("ended", over);
  session.on("failed", over);
});

byId("dial").onsubmit = (e) => {
  e.preventDefault();
  ua.call(`sip:${byId("target").value}@${location.hostname}`, media);
};
byId("answer").onclick = () => session.answer(media);
byId("hold").onclick = () => change(session, "hold");
byId("resume").onclick = () => change(session, "unhold");
byId("hangup").onclick = () => session.terminate();
byId("name").textContent = name;
setInterval(count, 500);
ua.start();
