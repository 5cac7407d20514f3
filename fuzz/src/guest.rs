//! Programs for a guest's side of the channel: some steps are what a sound guest
//! does, others are anything at all.

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Unstructured};
use cellule_abi::page::{
    COMPLETION_HEAD_OFFSET, COMPLETION_TAIL_OFFSET, REQUEST_TAIL_OFFSET, request_offset,
};
use cellule_abi::record::{Request, RequestOp};
use cellule_abi::wire;
use zerocopy::{FromBytes, IntoBytes};

use crate::handlers::NAMES;
use crate::page::{Change, HostilePage, Place, Word};
use crate::values::Event;

/// The import number of the function that panics.
const PANICS: u32 = 8;
/// The most words that a guest writes while the host looks at the page.
const CHANGES: u8 = 16;

/// A guest and the sandbox that it is in.
#[derive(Debug, Clone)]
pub struct Guest {
    /// What the embedder chose.
    pub setup: Setup,
    /// What the guest does, in this order.
    pub steps: Vec<Step>,
    /// What it writes while the host looks at the page.
    pub script: Vec<Change>,
}

/// What an embedder chooses.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// Which of [`NAMES`] the policy allows, a bit each.
    pub allowed: u16,
    /// The longest argument list and the longest result.
    pub message_bytes: u16,
    /// The size of the reply area.
    pub reply_bytes: u16,
    /// Which audit records of each 32 are refused, a bit each.
    pub refusals: u32,
}

impl Setup {
    /// Whether the policy allows the function with this import number.
    pub fn allows(&self, function: usize) -> bool {
        function < NAMES.len() && self.allowed >> function & 1 == 1
    }
}

impl Arbitrary<'_> for Guest {
    /// Makes a guest of all the bytes: what is left after a few changes is steps.
    fn arbitrary(u: &mut Unstructured<'_>) -> arbitrary::Result<Self> {
        let setup = Setup::arbitrary(u)?;
        let changes = if u.arbitrary()? { u.int_in_range(1..=CHANGES)? } else { 0 };
        let script = (0..changes).map(|_| u.arbitrary()).collect::<Result<_, _>>()?;
        let mut steps = Vec::new();
        while !u.is_empty() {
            steps.push(Step::arbitrary(u)?);
        }
        Ok(Self { setup, steps, script })
    }
}

impl Arbitrary<'_> for Setup {
    /// Limits that messages of some bytes reach, mostly a sink that takes all, and
    /// seldom permission for what ends the guest.
    fn arbitrary(u: &mut Unstructured<'_>) -> arbitrary::Result<Self> {
        let denied = if u.ratio(1, 8)? { 0 } else { 1 << PANICS };
        Ok(Self {
            allowed: u.arbitrary::<u16>()? & !denied,
            message_bytes: u.int_in_range(0..=300)?,
            reply_bytes: u.int_in_range(0..=1023)?,
            refusals: if u.ratio(1, 4)? { u.arbitrary()? } else { 0 },
        })
    }
}

/// One thing that a guest does.
#[derive(Debug, Clone)]
pub enum Step {
    /// Publishes a host call as it should be.
    Call(Call, Wire),
    /// Publishes a request of any bytes.
    Request([u8; 64]),
    /// Says that it has consumed some more completions of those it has got.
    Consume(u8),
    /// Writes a word.
    Word(Place, Word),
    /// Writes bytes.
    Bytes(Place, Vec<u8>),
    /// Rings the doorbell: the host takes and serves requests.
    Ring,
    /// Waits until the host calls: the host posts a completion of its own.
    Wait,
}

impl Arbitrary<'_> for Step {
    /// Mostly sound steps: most others are the last, as they end the guest. It
    /// consumes little at a time, so that the reply area is seldom all free.
    fn arbitrary(u: &mut Unstructured<'_>) -> arbitrary::Result<Self> {
        Ok(match u.int_in_range(0..=63_u8)? {
            0 => Self::Request(u.arbitrary()?),
            1 => Self::Word(u.arbitrary()?, u.arbitrary()?),
            2 => Self::Bytes(u.arbitrary()?, u.arbitrary()?),
            3 => Self::Wait,
            4..=15 => Self::Consume(u.int_in_range(0..=3)?),
            16..=27 => Self::Ring,
            _ => Self::Call(u.arbitrary()?, u.arbitrary()?),
        })
    }
}

/// A host call with arguments.
#[derive(Debug, Clone, Arbitrary)]
#[allow(missing_docs, reason = "each variant is the host function of that name")]
pub enum Call {
    Add(u32, i64),
    Upper(String),
    Echo(Vec<u8>),
    Sum(Vec<u64>),
    Find(BTreeMap<String, u32>, Option<String>),
    Fill(#[arbitrary(with = |u: &mut Unstructured<'_>| u.int_in_range(0..=310))] u16),
    Event(Box<Event>, bool),
    Nothing,
    Panics,
    /// Any function, with any bytes.
    Raw(#[arbitrary(with = |u: &mut Unstructured<'_>| u.int_in_range(0..=9))] u32, Vec<u8>),
}

impl Call {
    fn function(&self) -> u32 {
        match self {
            Self::Add(..) => 0,
            Self::Upper(_) => 1,
            Self::Echo(_) => 2,
            Self::Sum(_) => 3,
            Self::Find(..) => 4,
            Self::Fill(_) => 5,
            Self::Event(..) => 6,
            Self::Nothing => 7,
            Self::Panics => PANICS,
            Self::Raw(function, _) => *function,
        }
    }

    fn arguments(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let encoded = match self {
            Self::Add(x, y) => wire::append(&mut bytes, &(x, y)),
            Self::Upper(text) => wire::append(&mut bytes, text),
            Self::Echo(list) => wire::append(&mut bytes, list),
            Self::Sum(list) => wire::append(&mut bytes, list),
            Self::Find(map, key) => wire::append(&mut bytes, &(map, key)),
            Self::Fill(len) => wire::append(&mut bytes, len),
            Self::Event(event, keep) => wire::append(&mut bytes, &(event, keep)),
            Self::Nothing | Self::Panics => Ok(()),
            Self::Raw(_, raw) => return raw.clone(),
        };
        encoded.expect("these arguments encode");
        bytes
    }
}

/// What of a request the arguments do not determine.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub struct Wire {
    /// The request's id.
    pub id: u8,
    /// The calling task.
    pub task: u8,
    /// Where the arguments are split in two segments.
    pub split: u8,
}

/// The guest's memory: arguments, one behind the other.
#[derive(Debug, Default)]
pub struct GuestMemory(Vec<u8>);

/// The guest named memory that it does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes at {gva:#x} are not the guest's")]
pub struct NotThere {
    gva: u64,
    len: u32,
}

impl GuestMemory {
    /// Copies out what the guest names. The address of no bytes means nothing.
    pub fn copy_out(&self, gva: u64, len: u32) -> Result<Vec<u8>, NotThere> {
        let bytes = || {
            let start = usize::try_from(gva).ok()?;
            self.0.get(start..start.checked_add(usize::try_from(len).ok()?)?)
        };
        match len {
            0 => Ok(Vec::new()),
            _ => bytes().map(<[u8]>::to_vec).ok_or(NotThere { gva, len }),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> (u64, u32) {
        let gva = self.0.len() as u64;
        self.0.extend_from_slice(bytes);
        (gva, u32::try_from(bytes.len()).unwrap_or(u32::MAX))
    }
}

impl Step {
    /// Does what the guest alone does; ringing and waiting are for the host.
    pub fn act(&self, page: &HostilePage, memory: &mut GuestMemory) {
        match self {
            Self::Call(call, wire) => publish(page, &request(call, wire, memory)),
            Self::Request(raw) => {
                publish(page, &Request::read_from_bytes(raw).expect("64 bytes are a request"));
            }
            Self::Consume(count) => {
                let (head, tail) =
                    (page.peek(COMPLETION_HEAD_OFFSET), page.peek(COMPLETION_TAIL_OFFSET));
                let count = u32::from(*count).min(tail.wrapping_sub(head));
                page.scribble(COMPLETION_HEAD_OFFSET, &head.wrapping_add(count).to_le_bytes());
            }
            Self::Word(place, word) => page.scribble_word(*place, *word),
            Self::Bytes(place, bytes) => page.scribble_at(*place, bytes),
            Self::Ring | Self::Wait => {}
        }
    }
}

fn request(call: &Call, wire: &Wire, memory: &mut GuestMemory) -> Request {
    let arguments = call.arguments();
    let (head, tail) = arguments.split_at(usize::from(wire.split).min(arguments.len()));
    let ((head_gva, head_len), (tail_gva, tail_len)) = (memory.put(head), memory.put(tail));
    Request {
        id: wire.id.into(),
        op: RequestOp::HostCall as u16,
        function: call.function(),
        head_gva,
        head_len,
        tail_gva,
        tail_len,
        task: wire.task.into(),
        ..Default::default()
    }
}

fn publish(page: &HostilePage, request: &Request) {
    let tail = page.peek(REQUEST_TAIL_OFFSET);
    page.scribble(request_offset(tail), request.as_bytes());
    page.scribble(REQUEST_TAIL_OFFSET, &tail.wrapping_add(1).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_one_request_whose_segments_are_its_arguments() {
        let (page, mut memory) = (HostilePage::new(&[]), GuestMemory::default());
        let wire = Wire { id: 4, task: 2, split: 1 };
        Step::Call(Call::Upper("abc".into()), wire).act(&page, &mut memory);
        assert_eq!(page.peek(REQUEST_TAIL_OFFSET), 1);
        let request = Request::read_from_bytes(&page.peek_bytes::<64>(request_offset(0))).unwrap();
        let head = memory.copy_out(request.head_gva, request.head_len);
        let tail = memory.copy_out(request.tail_gva, request.tail_len);
        assert_eq!((head, tail), (Ok(vec![3]), Ok(b"abc".to_vec())));
        assert!(memory.copy_out(3, 2).is_err(), "there are four bytes");
    }

    #[test]
    fn a_guest_consumes_no_more_than_there_is() {
        let (page, mut memory) = (HostilePage::new(&[]), GuestMemory::default());
        page.scribble(COMPLETION_TAIL_OFFSET, &[3, 0, 0, 0]);
        Step::Consume(200).act(&page, &mut memory);
        assert_eq!(page.peek(COMPLETION_HEAD_OFFSET), 3);
    }
}
