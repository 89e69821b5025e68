//! The character devices of a machine, by id.
//!
//! Main thread. The options are the user's or a client's; what comes over a chardev is its front
//! end's matter. A client can make as many as `MOST`.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use devices::chardev::{self, Backend, CharError, Chardev, Mux, Patience};
use devices::class::FindChardev;
use qmp::ShutdownCause;
use resources::iol::Handle;
use resources::nearest::nearest;

use crate::cli::keyval::Pairs;
use crate::mailbox::Mailbox;
use crate::signals;

/// The most character devices.
const MOST: usize = 4096;

/// How long the end of the process may wait for peers to take what was written to them.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(1);

/// The character devices of a machine; by default none, and no loop for any.
#[derive(Default)]
pub struct Chardevs {
    /// In the order they were made.
    all: Vec<(String, Entry)>,
    home: Option<Home>,
    /// Standard input and output are not ours to use.
    pub no_stdio: bool,
    /// Labels of device strings that share their chardev with a human monitor (`mon:`).
    monitored: Vec<String>,
}

/// What they need of the process.
struct Home {
    io: Handle,
    mailbox: Arc<Mailbox>,
    escape: Option<u8>,
}

/// Why there is no such chardev.
#[derive(Debug, thiserror::Error)]
pub enum ChardevError {
    /// Its options are wrong, or it is in use.
    #[error(transparent)]
    Chardev(#[from] CharError),
    /// The host refuses it.
    #[error("{option}: {source}")]
    Open {
        /// The option that asks for it.
        option: String,
        /// The host's reason.
        source: CharError,
    },
    /// Two have the same id.
    #[error("Duplicate ID '{0}' for chardev")]
    Duplicate(String),
    /// An option names one that is not there.
    #[error("chardev \"{id}\" not found{}", nearest.as_ref().map_or(String::new(), |near| format!(" (did you mean '{near}'?)")))]
    Unknown {
        /// The id that was given.
        id: String,
        /// The one that was probably meant.
        nearest: Option<String>,
    },
    /// One that is to be shared is not there, or is one that is shared itself.
    #[error("mux: base chardev {0} not found")]
    NoBase(String),
    /// It has a front end.
    #[error("Chardev '{0}' is busy")]
    Busy(String),
    /// One that is shared cannot become another, nor another one that is shared.
    #[error("Mux device hotswap not supported yet")]
    Shared,
    /// There is no loop to serve it, or there are too many.
    #[error("no more character devices can be made")]
    TooMany,
}

/// A chardev, or one that several front ends share.
#[derive(Clone)]
enum Entry {
    Plain(Arc<Chardev>),
    Shared(Arc<Mux>),
}

impl Entry {
    fn front(&self) -> Result<Arc<Chardev>, CharError> {
        match self {
            Entry::Plain(chardev) => Ok(chardev.clone()),
            Entry::Shared(mux) => mux.slot(),
        }
    }

    fn filename(&self) -> String {
        match self {
            Entry::Plain(chardev) => chardev.filename(),
            Entry::Shared(mux) => mux.filename().to_owned(),
        }
    }

    fn is_used(&self) -> bool {
        match self {
            Entry::Plain(chardev) => chardev.is_used(),
            Entry::Shared(mux) => mux.users() > 0,
        }
    }
}

/// Adds the option to what the host says.
fn named(option: impl FnOnce() -> String) -> impl FnOnce(ChardevError) -> ChardevError {
    move |error| match error {
        ChardevError::Chardev(source) => ChardevError::Open { option: option(), source },
        other => other,
    }
}

/// Says on standard error where a new pseudo-terminal is.
fn tell_pty(chardev: &Chardev) {
    if let Some(path) = chardev.filename().strip_prefix("pty:") {
        let text = format!("char device redirected to {path} (label {})\n", chardev.label());
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// The back ends there are, as `-chardev help` prints them.
pub fn help_text() -> String {
    let names: String = chardev::backends().map(|name| format!("  {name}\n")).collect();
    format!("Available chardev backend types:\n{names}")
}

impl Chardevs {
    /// None yet. They live on the loop `io`; `escape` is the key that begins a command on one that
    /// is shared, where the user can also ask `mailbox` for the end.
    pub fn new(io: Handle, mailbox: &Arc<Mailbox>, escape: Option<u8>) -> Chardevs {
        let home = Home { io, mailbox: mailbox.clone(), escape };
        Chardevs { home: Some(home), ..Chardevs::default() }
    }

    /// The loop that they live on, unless said otherwise.
    ///
    /// # Errors
    /// When there is none.
    pub fn io(&self) -> Result<Handle, ChardevError> {
        Ok(self.home()?.io.clone())
    }

    fn home(&self) -> Result<&Home, ChardevError> {
        self.home.as_ref().ok_or(ChardevError::TooMany)
    }

    /// Makes what `-chardev` asks for.
    ///
    /// # Errors
    /// An option is wrong, or the host refuses what the back end needs.
    pub fn add(&mut self, pairs: &Pairs) -> Result<(), ChardevError> {
        let options = chardev::parse_options(pairs.iter())?;
        let on = self.io()?;
        self.open((&options.id, options.backend, options.mux), &on, Patience::Endless)
            .map_err(named(|| format!("-chardev {}", options.id)))
    }

    /// Makes one while the machine runs. Nothing is waited for: a server's first client and a
    /// connection that takes long come later.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn hot_add(&mut self, id: &str, backend: Backend) -> Result<(), ChardevError> {
        let on = self.io()?;
        self.open((id, backend, false), &on, Patience::Brief)
    }

    /// As [`hot_add`](Self::hot_add), of options in the form of `-chardev`.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn hot_add_options(&mut self, pairs: &Pairs) -> Result<(), ChardevError> {
        let options = chardev::parse_options(pairs.iter())?;
        let on = self.io()?;
        self.open((&options.id, options.backend, options.mux), &on, Patience::Brief)
    }

    fn open(
        &mut self,
        (id, backend, shared): (&str, Backend, bool),
        on: &Handle,
        patience: Patience,
    ) -> Result<(), ChardevError> {
        if self.find(id).is_some() {
            return Err(ChardevError::Duplicate(id.to_owned()));
        }
        if self.all.len() >= MOST {
            return Err(ChardevError::TooMany);
        }
        if let Backend::Mux(base) = backend {
            let Some(Entry::Plain(base)) = self.find(&base).cloned() else {
                return Err(ChardevError::NoBase(base));
            };
            return self.share(base, id, "mux");
        }
        self.check_stdio(&backend)?;
        let label = if shared { &format!("{id}-base") } else { id };
        if shared && self.find(label).is_some() {
            return Err(ChardevError::Duplicate(label.to_owned()));
        }
        let base = Chardev::open_with(label, backend, on, patience)?;
        tell_pty(&base);
        self.all.push((label.to_owned(), Entry::Plain(base.clone())));
        if shared {
            let filename = base.filename();
            return self.share(base, id, &filename);
        }
        Ok(())
    }

    /// Makes `id` share `base` between several front ends.
    fn share(&mut self, base: Arc<Chardev>, id: &str, filename: &str) -> Result<(), ChardevError> {
        let Home { mailbox, escape, .. } = self.home()?;
        let mailbox = mailbox.clone();
        let quit = move || {
            if !signals::end_start() {
                mailbox.ask(|mail| mail.quit = Some(ShutdownCause::HostUi));
            }
        };
        let on = base.home();
        let mux = Mux::new((id, filename), base, &on, *escape, quit)?;
        self.all.push((id.to_owned(), Entry::Shared(mux)));
        Ok(())
    }

    /// The chardev of a device string such as `stdio`, `unix:PATH` or `chardev:ID`; `None` for
    /// `none`.
    ///
    /// # Errors
    /// As [`add`](Self::add), or there is no chardev of that id.
    pub fn device(
        &mut self,
        (option, text): (&str, &str),
        label: &str,
        listen: bool,
        on: &Handle,
    ) -> Result<Option<Arc<Chardev>>, ChardevError> {
        match chardev::parse_device(option, text, listen)? {
            chardev::Device::None => Ok(None),
            chardev::Device::Chardev(id) => self.front(&id).map(Some),
            chardev::Device::New { backend, monitor } => {
                self.open((label, backend, monitor), on, Patience::Endless)
                    .map_err(named(|| format!("{option} {text}")))?;
                if monitor {
                    self.monitored.push(label.to_owned());
                }
                self.front(label).map(Some)
            }
        }
    }

    /// The chardevs of human monitors that share theirs with something else (`mon:stdio`), each
    /// once.
    ///
    /// # Errors
    /// One is shared by too many.
    pub fn take_monitored(&mut self) -> Result<Vec<Arc<Chardev>>, ChardevError> {
        let labels = std::mem::take(&mut self.monitored);
        labels.iter().map(|label| self.front(label)).collect()
    }

    fn find(&self, id: &str) -> Option<&Entry> {
        self.all.iter().find(|(other, _)| other == id).map(|(_, entry)| entry)
    }

    /// A chardev by id, for one more front end.
    ///
    /// # Errors
    /// There is none of that id, or no more front ends fit on it.
    pub fn front(&self, id: &str) -> Result<Arc<Chardev>, ChardevError> {
        match self.find(id) {
            Some(entry) => Ok(entry.front()?),
            None => Err(self.unknown(id)),
        }
    }

    fn unknown(&self, id: &str) -> ChardevError {
        let nearest = nearest(id, self.all.iter().map(|(id, _)| id.as_str())).map(str::to_owned);
        ChardevError::Unknown { id: id.to_owned(), nearest }
    }

    /// A chardev by id that is not a shared one, to look at and to act on; `Err` says whether
    /// there is a shared one.
    pub fn plain(&self, id: &str) -> Result<&Arc<Chardev>, bool> {
        match self.find(id) {
            Some(Entry::Plain(chardev)) => Ok(chardev),
            other => Err(other.is_some()),
        }
    }

    /// Has those who share one told of a break.
    pub fn break_shared(&self, id: &str) {
        if let Some(Entry::Shared(mux)) = self.find(id) {
            mux.base().send_break();
        }
    }

    /// Connects one, which may be in use, to something else.
    ///
    /// # Errors
    /// There is none of that id, it is shared or is to be, or the host refuses what the back end
    /// needs: then it stays as it is.
    pub fn change(&self, id: &str, backend: Backend) -> Result<(), ChardevError> {
        let Some(entry) = self.find(id) else { return Err(self.unknown(id)) };
        let (Entry::Plain(chardev), false) = (entry, matches!(backend, Backend::Mux(_))) else {
            return Err(ChardevError::Shared);
        };
        self.check_stdio(&backend)?;
        chardev.change(backend, Patience::Brief)?;
        tell_pty(chardev);
        Ok(())
    }

    fn check_stdio(&self, backend: &Backend) -> Result<(), ChardevError> {
        if matches!(backend, Backend::Stdio(_)) && self.no_stdio {
            let text = "cannot use stdio with -daemonize";
            return Err(CharError::Create(text.to_owned()).into());
        }
        Ok(())
    }

    /// Removes one, which hangs up on its peer.
    ///
    /// # Errors
    /// There is none of that id, or it is in use.
    pub fn remove(&mut self, id: &str) -> Result<(), ChardevError> {
        let Some(at) = self.all.iter().position(|(other, _)| other == id) else {
            return Err(self.unknown(id));
        };
        if self.all[at].1.is_used() {
            return Err(ChardevError::Busy(id.to_owned()));
        }
        // Those who found it, but do not use it, have one that does nothing.
        match self.all.remove(at).1 {
            Entry::Plain(chardev) => chardev.close(),
            Entry::Shared(mux) => mux.base().detach(),
        }
        Ok(())
    }

    /// Id and connection of each, the newest first.
    pub fn list(&self) -> impl Iterator<Item = (&str, String)> {
        self.all.iter().rev().map(|(id, entry)| (id.as_str(), entry.filename()))
    }

    /// All of them, oldest first: id and the word for the kind.
    pub fn kinds(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.all.iter().map(|(id, entry)| match entry {
            Entry::Plain(chardev) => (id.as_str(), chardev.kind()),
            Entry::Shared(_) => (id.as_str(), "mux"),
        })
    }

    /// Finds those that are there now, for devices.
    pub fn finder(&self) -> FindChardev {
        let all = self.all.clone();
        Arc::new(move |id| {
            all.iter().find(|(other, _)| other == id).map(|(_, entry)| entry.front())
        })
    }

    /// Closes them all. Peers have a moment to take what was written to them.
    pub fn close(&self) {
        let deadline = Instant::now() + LAST_WORDS;
        for (_, entry) in &self.all {
            if let Entry::Plain(chardev) = entry {
                chardev.flush(deadline);
                chardev.close();
            }
        }
    }
}
