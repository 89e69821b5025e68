//! A logical unit: what each command does to it.
//!
//! Thread: any. Lock: a leaf mutex around the unit's state, held while a command is looked at and
//! not while it is carried out. A guest chooses the commands and their parameters; a saved state
//! is taken as it is, as every value in it is one that the unit can have.

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::bytes::{self, Page};
use super::cdb::{Blocks, Command, StartStop};
use super::disc;
use super::inquiry::{Identity, MAX_TRANSFER, MAX_UNMAP};
use super::mode::{self, Shown, Wanted};
use super::sense::{Attention, Sense};

/// What lies in a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Medium {
    /// Its size in bytes; what does not fill a block at the end is not seen.
    pub bytes: u64,
    /// Whether it cannot be written.
    pub read_only: bool,
}

/// What is to be done for a command. Places and lengths are in bytes, inside the medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Answer with these bytes, as many as are taken; perhaps none.
    Answer(Vec<u8>),
    /// Read blocks into what the command came with.
    Read {
        /// The place.
        at: u64,
        /// The length.
        len: u64,
    },
    /// Write blocks from it.
    Write {
        /// The place.
        at: u64,
        /// The length.
        len: u64,
        /// Then flush.
        fua: bool,
    },
    /// Compare blocks with it; [`Sense::MISCOMPARE`] if they differ.
    Compare {
        /// The place.
        at: u64,
        /// The length.
        len: u64,
    },
    /// Make blocks zero; `unmap`: give their room back if that is as good.
    Zero {
        /// The place.
        at: u64,
        /// The length.
        len: u64,
        /// Their room may go.
        unmap: bool,
    },
    /// Fill blocks with copies of one.
    Fill {
        /// The place.
        at: u64,
        /// The length.
        len: u64,
        /// What each block becomes.
        block: Vec<u8>,
    },
    /// The bytes of these places and lengths are of no more use.
    Discard(Vec<(u64, u64)>),
    /// Have all that was written on the medium.
    Flush,
    /// The tray was opened or closed by the guest.
    Tray {
        /// It is open now.
        open: bool,
    },
    /// The guest has locked the medium in or freed it.
    Lock(bool),
}

/// What happened to the medium, for those who poll (MMC-6, table of media events).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum MediaEvent {
    #[default]
    None,
    EjectRequest,
    New,
    Gone,
}

/// The part of a unit that changes, and is saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What the next commands are told of; each of a kind once.
    attentions: Vec<Attention>,
    event: MediaEvent,
    write_cache: bool,
    tray_open: bool,
    locked: bool,
    stopped: bool,
}

impl State {
    fn new() -> State {
        State {
            attentions: vec![Attention::Reset],
            event: MediaEvent::None,
            write_cache: true,
            tray_open: false,
            locked: false,
            stopped: false,
        }
    }

    fn attend(&mut self, attention: Attention) {
        if !self.attentions.contains(&attention) {
            self.attentions.push(attention);
        }
    }
}

/// A logical unit without its medium.
pub struct Unit {
    identity: Identity,
    state: Mutex<State>,
}

impl Unit {
    /// A unit in its power-on state.
    pub fn new(identity: Identity) -> Unit {
        Unit { identity, state: Mutex::new(State::new()) }
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Back to power-on: the lock is off and the next command is told. The tray stays as it is.
    pub fn reset(&self) {
        let mut state = self.state.lock();
        let tray_open = state.tray_open;
        *state = State { tray_open, ..State::new() };
    }

    /// Has the next command told of something.
    pub fn attend(&self, attention: Attention) {
        self.state.lock().attend(attention);
    }

    /// The state, to be saved.
    pub fn save(&self) -> State {
        self.state.lock().clone()
    }

    /// Takes over a saved state.
    pub fn load(&self, mut state: State) {
        // Each kind once, whatever was loaded.
        let loaded = std::mem::take(&mut state.attentions);
        loaded.into_iter().for_each(|attention| state.attend(attention));
        state.tray_open &= self.identity.removable;
        *self.state.lock() = state;
    }

    /// Whether writes may be said to be done before they are on the medium.
    pub fn write_cache(&self) -> bool {
        self.state.lock().write_cache
    }

    /// Whether the guest has locked the medium in.
    pub fn is_locked(&self) -> bool {
        self.state.lock().locked
    }

    /// Frees the medium, whatever the guest wanted.
    pub fn unlock(&self) {
        self.state.lock().locked = false;
    }

    /// Whether the tray is open.
    pub fn is_open(&self) -> bool {
        self.state.lock().tray_open
    }

    /// The user opened or closed the tray; `medium`: whether there is one in it.
    pub fn move_tray(&self, open: bool, medium: bool) {
        let mut state = self.state.lock();
        if state.tray_open == open {
            return;
        }
        state.tray_open = open;
        if open || medium {
            state.event = if open { MediaEvent::Gone } else { MediaEvent::New };
            state.attend(Attention::Medium);
        }
    }

    /// The user would like the medium; the guest is to let it go.
    pub fn request_eject(&self) {
        let mut state = self.state.lock();
        state.event = MediaEvent::EjectRequest;
        state.attend(Attention::EjectRequest);
    }

    /// Looks at a command. `cdb` are its bytes; `parameters` gives up to as many bytes as it is
    /// asked for of those that come with it; `medium` is what lies in the drive.
    ///
    /// # Errors
    /// Why the command fails.
    pub fn begin(
        &self,
        cdb: &[u8],
        parameters: impl FnOnce(usize) -> Vec<u8>,
        medium: Option<Medium>,
    ) -> Result<Work, Sense> {
        let command = Command::parse(self.identity.kind, cdb);
        let mut state = self.state.lock();
        let ignores = command.as_ref().is_ok_and(Command::ignores_attention);
        if !ignores && !state.attentions.is_empty() {
            return Err(state.attentions.remove(0).sense());
        }
        let command = command?;
        let block = self.block_len();
        let wanted = command.parameters(block);
        let given = if wanted == 0 { Vec::new() } else { parameters(wanted) };
        if given.len() < wanted {
            return Err(Sense::LIST_LENGTH);
        }
        let medium = medium.filter(|_| !state.tray_open);
        self.execute(&mut state, command, &given, medium)
    }

    fn block_len(&self) -> usize {
        usize::try_from(self.identity.block).unwrap_or(512)
    }

    fn execute(
        &self,
        state: &mut State,
        command: Command,
        given: &[u8],
        medium: Option<Medium>,
    ) -> Result<Work, Sense> {
        let answer = |mut data: Vec<u8>, alloc: usize| {
            data.truncate(alloc);
            Ok(Work::Answer(data))
        };
        let done = Ok(Work::Answer(Vec::new()));
        let unit = &self.identity;
        let shown = Shown {
            write_cache: state.write_cache,
            read_only: medium.is_some_and(|medium| medium.read_only),
            locked: state.locked,
            blocks: medium.map(|medium| self.blocks(medium)),
        };
        match command {
            Command::TestUnitReady => self.ready(state, medium).and(done),
            Command::Nothing => done,
            Command::RequestSense { descriptor, alloc } => {
                let sense = if state.attentions.is_empty() {
                    Sense::NONE
                } else {
                    state.attentions.remove(0).sense()
                };
                let data =
                    if descriptor { sense.descriptor().to_vec() } else { sense.fixed().to_vec() };
                answer(data, alloc)
            }
            Command::Inquiry { page: None, alloc } => answer(unit.standard(), alloc),
            Command::Inquiry { page: Some(page), alloc } => answer(unit.page(page)?, alloc),
            Command::ModeSense { short, no_blocks, control, page, subpage, alloc } => {
                let wanted = Wanted { short, no_blocks, control, page, subpage };
                answer(mode::sense(unit, shown, wanted)?, alloc)
            }
            Command::ModeSelect { short, .. } => {
                let write_cache = mode::select(unit, shown, short, given)?;
                let was = state.write_cache;
                state.write_cache = write_cache.unwrap_or(was);
                // What was said to be done before must be done now.
                if was && !state.write_cache { Ok(Work::Flush) } else { done }
            }
            // Its target knows the units.
            Command::ReportLuns { alloc } => answer(report_luns(&[0]), alloc),
            Command::StartStop(what) => self.start_stop(state, what, medium),
            Command::PreventRemoval(locked) => {
                if !unit.removable {
                    return if locked { Err(Sense::INVALID_FIELD) } else { done };
                }
                state.locked = locked;
                Ok(Work::Lock(locked))
            }
            Command::ReadCapacity10 => {
                let last = self.last_block(state, medium)?;
                let last = u32::try_from(last).unwrap_or(u32::MAX);
                answer(Page::new(8).be32(0, last).be32(4, unit.block).done(), 8)
            }
            Command::ReadCapacity16 { alloc } => {
                let last = self.last_block(state, medium)?;
                let page = Page::new(32).be64(0, last).be32(8, unit.block);
                let page = page.byte(13, unit.physical_exponent());
                // Blocks may be without room.
                let thin = if unit.discard != 0 { 0x80 } else { 0 };
                answer(page.byte(14, thin).done(), alloc)
            }
            Command::Read(blocks) => {
                let (at, len) = self.place(state, medium, blocks)?;
                Ok(Work::Read { at, len })
            }
            Command::Write { blocks, fua } => {
                let (at, len) = self.writable(state, medium, blocks)?;
                Ok(Work::Write { at, len, fua: fua || !state.write_cache })
            }
            Command::Verify { blocks, compare } => {
                let (at, len) = self.place(state, medium, blocks)?;
                if compare { Ok(Work::Compare { at, len }) } else { done }
            }
            Command::Seek { lba } => {
                self.place(state, medium, Blocks { lba, count: 1 })?;
                done
            }
            Command::SynchronizeCache => {
                self.ready(state, medium)?;
                Ok(Work::Flush)
            }
            Command::WriteSame { blocks, unmap, .. } => {
                let count = match blocks.count {
                    // All up to the end.
                    0 => shown.blocks.unwrap_or(0).saturating_sub(blocks.lba),
                    count => count,
                };
                let (at, len) = self.writable(state, medium, Blocks { count, ..blocks })?;
                if len > u64::from(MAX_TRANSFER) {
                    return Err(Sense::INVALID_FIELD);
                }
                if given.iter().all(|byte| *byte == 0) {
                    return Ok(Work::Zero { at, len, unmap: unmap && unit.discard != 0 });
                }
                Ok(Work::Fill { at, len, block: given.to_vec() })
            }
            Command::Unmap { .. } => {
                if unit.discard == 0 {
                    return Err(Sense::INVALID_OPCODE);
                }
                self.ready(state, medium)?;
                self.unmap(state, medium, given)
            }
            Command::ReadToc { msf, format, track, alloc } => {
                answer(disc::toc(self.disc(state, medium)?, msf, format, track)?, alloc)
            }
            Command::GetConfiguration { only, first, alloc } => {
                let blocks = medium.map(|medium| self.disc_blocks(medium));
                answer(disc::configuration(blocks, only, first)?, alloc)
            }
            Command::GetEventStatus { polled, classes, alloc } => {
                if !polled {
                    return Err(Sense::INVALID_FIELD);
                }
                let event = match state.event {
                    MediaEvent::None => 0,
                    MediaEvent::EjectRequest => 1,
                    MediaEvent::New => 2,
                    MediaEvent::Gone => 3,
                };
                if classes & 0x10 != 0 {
                    state.event = MediaEvent::None;
                }
                answer(disc::event_status(classes, event, medium.is_some(), state.tray_open), alloc)
            }
            Command::ReadDiscInformation { alloc } => {
                self.disc(state, medium)?;
                answer(disc::information(), alloc)
            }
            Command::ReadDvdStructure { layer, format, alloc } => {
                let blocks = if format == 0xff { 0 } else { self.disc(state, medium)? };
                answer(disc::dvd_structure(blocks, layer, format)?, alloc)
            }
            Command::MechanismStatus { alloc } => answer(Page::new(8).byte(5, 1).done(), alloc),
        }
    }

    /// Whether commands that need a medium can be done.
    fn ready(&self, state: &State, medium: Option<Medium>) -> Result<Medium, Sense> {
        match medium {
            _ if state.tray_open => Err(Sense::TRAY_OPEN),
            None => Err(Sense::NO_MEDIUM),
            Some(_) if state.stopped => Err(Sense::NOT_READY_STOPPED),
            Some(medium) => Ok(medium),
        }
    }

    fn blocks(&self, medium: Medium) -> u64 {
        medium.bytes.checked_div(u64::from(self.identity.block)).unwrap_or(0)
    }

    fn last_block(&self, state: &State, medium: Option<Medium>) -> Result<u64, Sense> {
        let blocks = self.blocks(self.ready(state, medium)?);
        blocks.checked_sub(1).ok_or(Sense::NO_MEDIUM)
    }

    /// Blocks of a disc, whose addresses have 32 bits.
    fn disc(&self, state: &State, medium: Option<Medium>) -> Result<u32, Sense> {
        Ok(self.disc_blocks(self.ready(state, medium)?))
    }

    fn disc_blocks(&self, medium: Medium) -> u32 {
        u32::try_from(self.blocks(medium)).unwrap_or(u32::MAX)
    }

    /// The place and length of blocks in bytes, if they are all there.
    fn place(
        &self,
        state: &State,
        medium: Option<Medium>,
        Blocks { lba, count }: Blocks,
    ) -> Result<(u64, u64), Sense> {
        let all = self.blocks(self.ready(state, medium)?);
        let end = lba.checked_add(count).ok_or(Sense::LBA_RANGE)?;
        if end > all {
            return Err(Sense::LBA_RANGE);
        }
        let size = u64::from(self.identity.block);
        let bytes = |blocks: u64| blocks.checked_mul(size).ok_or(Sense::LBA_RANGE);
        Ok((bytes(lba)?, bytes(count)?))
    }

    /// As `place`, for what is to be written.
    fn writable(
        &self,
        state: &State,
        medium: Option<Medium>,
        blocks: Blocks,
    ) -> Result<(u64, u64), Sense> {
        let place = self.place(state, medium, blocks)?;
        if medium.is_some_and(|medium| medium.read_only) {
            return Err(Sense::WRITE_PROTECTED);
        }
        Ok(place)
    }

    /// The parameter list of UNMAP: a header of 8 bytes, descriptors of 16.
    fn unmap(&self, state: &State, medium: Option<Medium>, list: &[u8]) -> Result<Work, Sense> {
        if list.is_empty() {
            return Ok(Work::Answer(Vec::new()));
        }
        let len = bytes::length(list, 2, 2);
        if list.len() < 8
            || bytes::length(list, 0, 2) < len.saturating_add(6)
            || !len.is_multiple_of(16)
        {
            return Err(Sense::LIST_LENGTH);
        }
        let descriptors = list.get(8..len.saturating_add(8)).ok_or(Sense::LIST_LENGTH)?;
        let descriptors = descriptors.chunks_exact(16);
        if descriptors.len() > MAX_UNMAP {
            return Err(Sense::INVALID_PARAMETER);
        }
        let places = descriptors.map(|d| {
            let blocks = Blocks { lba: bytes::number(d, 0, 8), count: bytes::number(d, 8, 4) };
            self.writable(state, medium, blocks)
        });
        let places: Result<Vec<_>, _> = places.collect();
        Ok(Work::Discard(places?.into_iter().filter(|(_, len)| *len != 0).collect()))
    }

    fn start_stop(
        &self,
        state: &mut State,
        what: StartStop,
        medium: Option<Medium>,
    ) -> Result<Work, Sense> {
        let open = match what {
            StartStop::Power => return Ok(Work::Answer(Vec::new())),
            StartStop::Start => {
                state.stopped = false;
                return Ok(Work::Answer(Vec::new()));
            }
            StartStop::Stop => {
                state.stopped = true;
                return Ok(Work::Flush);
            }
            _ if !self.identity.removable => return Err(Sense::INVALID_FIELD),
            StartStop::Eject => true,
            StartStop::Load => false,
        };
        if open && !state.tray_open && state.locked {
            // To a locked tray that has a medium this is no way out.
            return Err(if medium.is_some() {
                Sense::REMOVAL_PREVENTED
            } else {
                Sense { key: 0x2, ..Sense::REMOVAL_PREVENTED }
            });
        }
        state.stopped = false;
        if state.tray_open == open {
            return Ok(Work::Answer(Vec::new()));
        }
        state.tray_open = open;
        state.event = if open { MediaEvent::Gone } else { MediaEvent::New };
        Ok(Work::Tray { open })
    }
}

/// What REPORT LUNS answers for a target that has these units.
pub fn report_luns(luns: &[u16]) -> Vec<u8> {
    // The guest asks LUN 0 of a target even where there is none.
    let zero = if luns.contains(&0) { None } else { Some(0) };
    let list: Vec<u8> = zero
        .into_iter()
        .chain(luns.iter().copied())
        .flat_map(|lun| {
            // Flat addresses from 256 on.
            let [high, low] = u16::to_be_bytes(lun);
            let high = if high == 0 { 0 } else { high & 0x3f | 0x40 };
            [high, low, 0, 0, 0, 0, 0, 0]
        })
        .collect();
    [Page::new(8).be32(0, bytes::be32_len(list.len())).done(), list].concat()
}
