import JsSIP from "jssip";
import { Log } from "./log.js";

const log = new Log();
// With offerToReceiveAudio JsSIP answers an INVITE without an offer, too: without it, it makes
// an offer without a line of media, and waits for ever for its candidates.
const media = {
  mediaConstraints: { audio: true, video: false }, pcConfig: { iceServers: [] },
  rtcOfferConstraints: { offerToReceiveAudio: true },
};
let ua, session, consultation;

function watch(s) {
  ["progress", "accepted", "confirmed", "ended", "failed", "hold", "unhold", "replaces"].forEach((name) =>
    s.on(name, (e) => log.add(name, e && e.cause)));
  s.on("refer", (e) => {
    e.accept((second) => { watch(second); }, media);
    log.add("refer");
  });
  s.on("replaces", (e) => {
    e.accept((second) => {
      session = watch(second);
      second.answer(media); // the replaced call is hung up
    });
  });
  return s;
}

window.phone = {
  wait: (name) => log.wait(name),
  events: () => log.events,
  connect(url, uri) {
    ua = new JsSIP.UA({
      sockets: [new JsSIP.WebSocketInterface(url)], uri, password: "secret", register: true,
      session_timers: true, session_timers_refresh_method: "UPDATE",
    });
    ["connected", "registered", "registrationFailed"].forEach((name) => ua.on(name, () => log.add(name)));
    ua.on("newRTCSession", (e) => {
      if (e.originator === "remote") {
        session = watch(e.session);
        log.add("rings");
      }
    });
    ua.start();
    return log.wait("registered");
  },
  dial(target) { session = watch(ua.call(target, { ...media, sessionTimersExpires: 90 })); },
  answer() { session.answer({ ...media, sessionTimersExpires: 90 }); },
  refuse() { session.terminate({ status_code: 486 }); },
  hangup() { session.terminate(); },
  hold() { if (!session.hold()) throw new Error("not ready to hold"); },
  resume() { if (!session.unhold()) throw new Error("not ready to resume"); },
  transfer(target) { session.refer(target); },
  async consult(target) {
    session.hold();
    await log.wait("hold");
    consultation = watch(ua.call(target, media));
  },
  complete() { session.refer(consultation.remote_identity.uri, { replaces: consultation }); },
  text(target, words) { ua.sendMessage(target, words); },
  press(key) { session.sendDTMF(key); },
};
