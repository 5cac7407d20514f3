//! What a sandbox leaves on record, and what happens if nobody takes it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod support;

use std::io::PipeReader;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cellule::audit::verify::Source;
use cellule::audit::{Chain, Confirm, End, Expected, FileOptions, FileSink, Origin, verify};
use cellule::{
    CallError, Event, Image, MemorySink, Policy, Record, Sandbox, SandboxBuilder, Sink, SinkRefused,
};
use cellule_test_guests::{basics, hosted};
use support::backends;

/// A sandbox that may call `double`, and how often it did.
fn doubling(image: &Image) -> (SandboxBuilder, Arc<AtomicU32>) {
    let calls = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&calls);
    let builder = Sandbox::builder(image).host_function("double", move |n: u64| {
        counter.fetch_add(1, Ordering::Relaxed);
        n * 2
    });
    (builder.policy(Policy::deny_all().allow("double")), calls)
}

#[test]
fn the_chain_starts_from_the_image_and_goes_through_every_record() {
    for backend in backends() {
        let image = Image::from_bytes(hosted()).unwrap();
        let (sink, trail) = MemorySink::new(100);
        let mut sandbox = doubling(&image).0.backend(backend).audit(sink).build().unwrap();
        assert_eq!(sandbox.call::<u64>("double_by_host", (4_u64,)).unwrap(), 8);
        drop(sandbox);
        let origins = trail.origins();
        let [origin] = &origins[..] else { panic!("one sandbox: {origins:?}") };
        assert_eq!(origin.image, image.digest());
        let mut chain = Chain::new(origin);
        let records = trail.records();
        assert_eq!(records.len(), 6);
        assert!(records.iter().all(|record| chain.append(record) == record.link));
        assert!(records.windows(2).all(|pair| pair[0].at <= pair[1].at));
    }
}

#[test]
fn sandboxes_share_a_log_that_verifies() {
    for backend in backends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let image = Image::from_bytes(hosted()).unwrap();
        let sink = FileSink::create(&path).unwrap();
        let make = || doubling(&image).0.backend(backend).audit(sink.clone()).build().unwrap();
        let mut sandboxes = [make(), make()];
        for sandbox in &mut sandboxes {
            assert_eq!(sandbox.call::<u64>("double_by_host", (4_u64,)).unwrap(), 8);
        }
        drop((sandboxes, sink));
        let verified = verify([Source::open(&path).unwrap()], Expected::default()).unwrap();
        assert_eq!((verified.sandboxes, verified.records), (2, 12));
        assert_eq!(verified.end, End::Closed);
    }
}

#[test]
fn an_interrupt_is_on_record_whether_or_not_the_guest_had_started() {
    for backend in backends() {
        let image = Image::from_bytes(basics()).unwrap();
        let (sink, trail) = MemorySink::new(100);
        let mut sandbox = Sandbox::builder(&image).backend(backend).audit(sink).build().unwrap();
        let handle = sandbox.interrupt_handle();
        handle.interrupt();
        sandbox.call::<()>("nothing", ()).unwrap_err();
        let last = trail.records().pop().unwrap().event;
        assert_eq!(last, Event::Interrupted { started: false });
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| {
                // The record is made before the guest starts.
                while !matches!(trail.records().pop().unwrap().event, Event::CallBegan { .. }) {}
                handle.interrupt();
            });
            sandbox.call::<()>("spin", ())
        });
        assert!(matches!(outcome, Err(CallError::Interrupted { .. })), "{outcome:?}");
        let events: Vec<_> = trail.records().into_iter().map(|record| record.event).collect();
        let interrupted = events.iter().filter(|event| event.kind() == "interrupted").count();
        assert_eq!(interrupted, 2, "{events:#?}");
    }
}

/// A log whose medium fails once a call has begun.
struct Failing {
    log: FileSink,
    reader: Option<PipeReader>,
}

impl Sink for Failing {
    fn begin(&mut self, origin: &Origin) -> Result<(), SinkRefused> {
        self.log.begin(origin)
    }

    fn take(&mut self, record: &Record) -> Result<(), SinkRefused> {
        self.log.take(record)?;
        if matches!(record.event, Event::CallBegan { .. }) {
            self.reader = None;
        }
        Ok(())
    }
}

#[test]
fn a_host_call_that_cannot_be_written_does_not_happen() {
    for backend in backends() {
        let image = Image::from_bytes(hosted()).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
        let log = FileOptions::new().confirm(Confirm::Written).create(path).unwrap();
        drop(writer);
        let sink = Failing { log: log.clone(), reader: Some(reader) };
        let (builder, calls) = doubling(&image);
        let mut sandbox = builder.backend(backend).audit(sink).build().unwrap();
        // The guest is told that the host is unavailable, and that it said so is lost too.
        let error = sandbox.call::<Result<u64, String>>("try_double", (4_u64,)).unwrap_err();
        assert!(matches!(error, CallError::Host(_)), "{error}");
        assert_eq!(calls.load(Ordering::Relaxed), 0, "the host function should NOT have run");
        let failure = log.failure().unwrap().to_string();
        assert!(failure.starts_with("cannot write to /proc/self/fd/"), "{failure}");
    }
}

#[test]
fn a_sandbox_that_cannot_be_recorded_is_not_built() {
    struct Full;
    impl Sink for Full {
        fn begin(&mut self, _: &Origin) -> Result<(), SinkRefused> {
            Err(SinkRefused)
        }
        fn take(&mut self, _: &Record) -> Result<(), SinkRefused> {
            panic!("what was not begun has no records")
        }
    }
    for backend in backends() {
        let image = Image::from_bytes(basics()).unwrap();
        let error = Sandbox::builder(&image).backend(backend).audit(Full).build().unwrap_err();
        assert_eq!(error.to_string(), "the audit sink cannot take a record");
    }
}
