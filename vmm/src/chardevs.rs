//! The character devices of a machine, by id.
//!
//! Main thread. The options are the user's; what comes over a chardev is its front end's matter.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use devices::chardev::{self, Backend, CharError, Chardev, Mux};
use devices::class::FindChardev;
use qmp::ShutdownCause;
use resources::iol::Handle;
use resources::nearest::nearest;

use crate::cli::keyval::Pairs;
use crate::mailbox::Mailbox;
use crate::signals;

/// The character devices of a machine.
pub struct Chardevs {
    all: BTreeMap<String, Entry>,
    io: Handle,
    mailbox: Arc<Mailbox>,
    escape: Option<u8>,
    /// Those that are to have a human monitor besides (`mon:`).
    monitored: Vec<String>,
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
}

/// Adds the option to what the host says.
fn named(option: impl FnOnce() -> String) -> impl FnOnce(ChardevError) -> ChardevError {
    move |error| match error {
        ChardevError::Chardev(source) => ChardevError::Open { option: option(), source },
        other => other,
    }
}

impl Chardevs {
    /// None yet. They live on the loop `io`; `escape` is the key that begins a command on one that
    /// is shared, where the user can also ask `mailbox` for the end.
    pub fn new(io: Handle, mailbox: &Arc<Mailbox>, escape: Option<u8>) -> Chardevs {
        Chardevs {
            all: BTreeMap::new(),
            io,
            mailbox: mailbox.clone(),
            escape,
            monitored: Vec::new(),
        }
    }

    /// The loop that they live on, unless said otherwise.
    pub fn io(&self) -> &Handle {
        &self.io
    }

    /// Makes what `-chardev` asks for.
    ///
    /// # Errors
    /// An option is wrong, or the host refuses what the back end needs.
    pub fn add(&mut self, pairs: &Pairs) -> Result<(), ChardevError> {
        let options = chardev::parse_options(pairs.iter())?;
        let on = self.io.clone();
        self.open(&options.id, options.backend, options.mux, &on)
            .map_err(named(|| format!("-chardev {}", options.id)))
    }

    fn open(
        &mut self,
        label: &str,
        backend: Backend,
        shared: bool,
        on: &Handle,
    ) -> Result<(), ChardevError> {
        if self.all.contains_key(label) {
            return Err(ChardevError::Duplicate(label.to_owned()));
        }
        let pty = matches!(backend, Backend::Pty(_));
        let base = Chardev::open(label, backend, on)?;
        if pty {
            let filename = base.filename();
            let path = filename.strip_prefix("pty:").unwrap_or(&filename);
            let text = format!("char device redirected to {path} (label {label})\n");
            let _ = std::io::stderr().write_all(text.as_bytes());
        }
        let entry = if shared {
            let mailbox = self.mailbox.clone();
            let quit = move || {
                if !signals::end_start() {
                    mailbox.ask(|mail| mail.quit = Some(ShutdownCause::HostUi));
                }
            };
            Entry::Shared(Mux::new(base, on, self.escape, quit)?)
        } else {
            Entry::Plain(base)
        };
        self.all.insert(label.to_owned(), entry);
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
                self.open(label, backend, monitor, on)
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

    /// A chardev by id, for one more front end.
    fn front(&self, id: &str) -> Result<Arc<Chardev>, ChardevError> {
        match self.all.get(id) {
            Some(entry) => Ok(entry.front()?),
            None => {
                let nearest = nearest(id, self.all.keys().map(String::as_str)).map(str::to_owned);
                Err(ChardevError::Unknown { id: id.to_owned(), nearest })
            }
        }
    }

    /// Finds those that are there now, for devices.
    pub fn finder(&self) -> FindChardev {
        let all = self.all.clone();
        Box::new(move |id| all.get(id).map(Entry::front))
    }

    /// Closes them all, after what was written to them.
    pub fn close(&self) {
        for entry in self.all.values() {
            match entry {
                Entry::Plain(chardev) => chardev.close(),
                Entry::Shared(mux) => mux.base().close(),
            }
        }
    }
}
