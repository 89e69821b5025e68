//! The entry for fuzzing, shared by the cargo-fuzz target and the seed corpus.

use crate::monitors::{Context, Host, Monitors};
use crate::session::Session;
use crate::{Command, Event, Handle, QmpError, VersionInfo, VersionInfoQemu, json};
use std::time::Instant;

/// A host that decodes every command and carries out none.
#[derive(Debug, Default)]
struct Stub {
    context: Context,
}

impl<C: Command> Handle<C> for Stub {
    fn handle(&mut self, _: C) -> Result<C::Ret, QmpError> {
        self.context.raise(Event::RtcChange { offset: 1 });
        self.context.raise(Event::Stop);
        Err(QmpError::generic(C::NAME))
    }
}

impl Host for Stub {
    fn context(&mut self) -> &mut Context {
        &mut self.context
    }
}

/// Feeds `data` to a session after negotiation, cut where its first byte says,
/// and to one before. Nothing it holds may panic, hang, or bloat.
///
/// # Panics
/// If the writer makes text that the parser does not take.
pub fn fuzz(data: &[u8]) {
    let (cut, text) = data.split_first().map_or((1, data), |(cut, text)| (*cut, text));
    let version = VersionInfo {
        qemu: VersionInfoQemu { micro: 50, minor: 7, major: 1 },
        package: String::new(),
    };
    let (mut monitors, mut host, now) = (Monitors::new(), Stub::default(), Instant::now());
    let id = monitors.add(cut >= 128);
    monitors.connect(id, &version);
    monitors.feed(id, br#"{"execute": "qmp_capabilities"}"#, None);
    for piece in text.chunks(usize::from(cut).max(1)) {
        monitors.feed(id, piece, None);
        while monitors.serve_one(id, &mut host, now) {}
        let unsent = monitors.output(id).len();
        reads_back(monitors.output(id));
        monitors.sent(id, unsent);
        // Over-long output pauses the session in the middle of what was fed.
        while monitors.serve_one(id, &mut host, now) {}
    }

    let mut session = Session::new(&version, false);
    session.feed(text);
    while let Some(request) = session.next_request() {
        session.reply(request.id, Err(QmpError::syntax()));
        session.sent(session.output().len());
    }
}

/// What the session says, the parser takes, but for the `null` that only query-qmp-schema says
/// and no client may.
fn reads_back(output: &[u8]) {
    let mut parser = json::Parser::new();
    let text = String::from_utf8_lossy(output).replace("\"default\": null", "\"default\": 0");
    let mut rest = text.as_bytes();
    while let (used, Some(message)) = parser.parse(rest) {
        assert!(message.is_ok(), "output that is not JSON");
        rest = rest.get(used..).unwrap_or_default();
    }
    assert_eq!(parser, json::Parser::new(), "output that ends inside a message");
}
