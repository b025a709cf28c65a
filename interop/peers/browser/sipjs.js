import { Inviter, Messager, Registerer, RegistererState, SessionState, UserAgent } from "sip.js";
import { Log } from "./log.js";

const log = new Log();
const media = { sessionDescriptionHandlerOptions: { constraints: { audio: true, video: false } } };
let ua, session, consultation;

function watch(s) {
  s.stateChange.addListener((state) => log.add(state));
  s.delegate = {
    onRefer: async (referral) => {
      await referral.accept();
      const second = watch(referral.makeInviter(media));
      log.add("refer");
      await second.invite();
      session = second;
    },
  };
  return s;
}

const uriOf = (text) => UserAgent.makeURI(text);

async function setHold(hold) {
  session.sessionDescriptionHandlerOptionsReInvite = { hold };
  await session.invite({ requestDelegate: { onAccept: () => log.add(hold ? "hold" : "unhold"), onReject: () => log.add("hold refused") } });
}

window.phone = {
  wait: (name) => log.wait(name),
  events: () => log.events,
  async connect(url, uri) {
    ua = new UserAgent({
      uri: uriOf(uri), transportOptions: { server: url }, logBuiltinEnabled: false, sipExtension100rel: "Supported",
      sipExtensionReplaces: "Supported",
      sessionDescriptionHandlerFactoryOptions: { iceGatheringTimeout: 500, peerConnectionConfiguration: { iceServers: [] } },
      delegate: {
        onInvite: (invitation) => {
          session = watch(invitation);
          log.add("rings");
          if (invitation.replacee) invitation.accept(media); // the replaced call is hung up
        },
      },
    });
    await ua.start();
    const registerer = new Registerer(ua);
    registerer.stateChange.addListener((state) => { if (state === RegistererState.Registered) log.add("registered"); });
    await registerer.register();
    return log.wait("registered");
  },
  dial(target) {
    session = watch(new Inviter(ua, uriOf(target), media));
    session.invite();
  },
  answer() { session.accept(media); },
  refuse() { session.reject({ statusCode: 486 }); },
  hangup() {
    if (session.state === SessionState.Established) return session.bye();
    if (session instanceof Inviter) return session.cancel();
    return session.reject();
  },
  hold: () => setHold(true),
  resume: () => setHold(false),
  transfer(target) { session.refer(uriOf(target)); },
  async consult(target) {
    await setHold(true);
    await log.wait("hold");
    consultation = watch(new Inviter(ua, uriOf(target), media));
    await consultation.invite();
  },
  complete() { session.refer(consultation); },
  text: (target, words) => new Messager(ua, uriOf(target), words).message(),
  press(key) {
    session.info({ requestOptions: { body: { contentDisposition: "render", contentType: "application/dtmf-relay", content: `Signal=${key}\r\nDuration=160` } } });
  },
};
