//! Changing the header: all of a change, or nothing of it.
//!
//! The file follows what the header says, so memory and file must never differ in it. When a write
//! of the header fails, or the flush behind it, nobody knows which of the two the file has: it gets
//! the old one again, and where that fails too the image is out of service, with everything still
//! there that either of them refers to.
//!
//! On the image's loop. Changes take turns, so what one of them restores is nobody else's.

use std::io;

use resources::iol::IoBuf;

use super::Qcow2;
use super::header::{CORRUPT, Header};

impl Qcow2 {
    /// Changes the header, durably.
    ///
    /// # Errors
    /// Those of the file; when there is no room for it. The header is the old one then, in memory
    /// and durably in the file, or else the image is out of service: only if it is still
    /// [`alive`](Self::alive) may the caller give up what the new one would have referred to.
    pub(super) async fn change_header(&self, change: impl FnOnce(&mut Header)) -> io::Result<()> {
        let _turn = self.header_turn.enter().await;
        self.alive()?;
        let old = self.header.borrow().clone();
        change(&mut self.header.borrow_mut());
        let Err(error) = self.write_header().await else { return Ok(()) };
        *self.header.borrow_mut() = old;
        if let Err(again) = self.write_header().await {
            tracing::error!(%error, %again, "qcow2_header_unknown");
            self.dead.set(true);
        }
        Err(error)
    }

    /// Says in the header that the image contradicts itself. It is out of service, so what is in
    /// memory stays so.
    pub(super) async fn mark_corrupt(&self) -> io::Result<()> {
        let _turn = self.header_turn.enter().await;
        self.header.borrow_mut().incompatible |= CORRUPT;
        self.write_header().await
    }

    /// Writes the header, durably.
    async fn write_header(&self) -> io::Result<()> {
        let (writes, named_at) = self.header.borrow().writes()?;
        for (at, bytes) in writes {
            self.file.write(at, IoBuf::copy_of(&bytes), false).await?;
            self.file.flush().await?;
        }
        self.header.borrow_mut().named_at = named_at;
        Ok(())
    }
}

#[cfg(test)]
#[path = "tests/header_faults.rs"]
mod tests;
