//! Making drives by their options.
//!
//! Main thread; opening an image waits for the loop that serves drives without a device. Names and
//! options are a client's.

use block::Options;
use qmp::{BlockdevAdd, BlockdevAioOptions, BlockdevOptionsDriver, Handle, QmpError};

use crate::drives::{DriveError, Home};
use crate::vm::Vm;

impl Handle<BlockdevAdd> for Vm {
    fn handle(&mut self, BlockdevAdd { options }: BlockdevAdd) -> Result<(), QmpError> {
        use BlockdevOptionsDriver as Driver;
        let refuse = |text: String| Err(QmpError::generic(text));
        let Some(id) = options.id.clone() else {
            return refuse("Block device needs an ID".to_owned());
        };
        let direct = options.cache.as_ref().and_then(|cache| cache.direct);
        if options.aio == Some(BlockdevAioOptions::Native) && direct.is_none() {
            return refuse("aio=native requires cache.direct=true".to_owned());
        }
        let is_protocol = matches!(
            options.driver,
            Driver::File(_)
                | Driver::Http(_)
                | Driver::Https(_)
                | Driver::Ftp(_)
                | Driver::Ftps(_)
                | Driver::Tftp(_)
                | Driver::Vvfat(_)
        );
        if is_protocol {
            let why = "Must specify either driver or file";
            return refuse(format!("could not open disk image {id}: {why}"));
        }
        // The names in the schema are those of the options.
        let text = serde_json::to_string(&options).map_err(|e| QmpError::generic(e.to_string()))?;
        let flat = Options::from_json(&text);
        let mut flat = flat.map_err(|error| QmpError::generic(error.to_string()))?;
        flat.take("id");
        self.add_drive(&id, flat)
    }
}

impl Vm {
    /// Makes a drive from options as `-drive` has them.
    ///
    /// # Errors
    /// An option is wrong, the id is taken, or the image cannot be opened.
    pub fn add_drive(&mut self, id: &str, options: Options) -> Result<(), QmpError> {
        let io = self.chardevs.io().map_err(|error| QmpError::generic(error.to_string()))?;
        let mailbox = self.mailbox().clone();
        Ok(self.drives.add(id, options, &Home { io, mailbox: &mailbox })?)
    }
}

impl From<DriveError> for QmpError {
    fn from(error: DriveError) -> QmpError {
        QmpError::generic(error.to_string())
    }
}
