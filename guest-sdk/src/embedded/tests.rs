//! Tests.

use super::*;
use crate::critical;
use crate::future::block_on;
use crate::task;

/// What a driver is: it knows the traits only.
fn driver(delay: &mut impl DelayNs) {
    delay.delay_ns(5);
    delay.delay_us(5);
    // More than 2^32 nanoseconds, which the default method cuts up.
    delay.delay_ms(5000);
}

const DRIVER_TAKES: Duration = Duration::from_nanos(5_000_005_005);

#[test]
fn a_delay_takes_its_time_and_lets_others_run() {
    let other = task::spawn(time::now).unwrap();
    let start = time::now();
    driver(&mut Delay);
    assert_eq!(time::now(), start + DRIVER_TAKES);
    assert_eq!(other.task().ended(), Some(task::End::Returned));
}

#[test]
fn a_delay_in_a_critical_section_uses_the_processor() {
    let other = task::spawn(time::now).unwrap();
    let start = time::now();
    critical::with(|_| driver(&mut Delay));
    assert_eq!(time::now(), start + DRIVER_TAKES);
    assert_eq!(other.task().ended(), None);
}

#[test]
fn a_delay_that_is_called_off_is_still_as_long() {
    let driver = task::spawn(|| driver(&mut Delay)).unwrap();
    let start = time::now();
    time::sleep(Duration::from_secs(1)).unwrap();
    assert!(driver.task().cancel_wait());
    driver.join().unwrap();
    assert_eq!(time::now(), start + DRIVER_TAKES);
}

#[test]
fn a_pipe_is_a_reader_and_a_writer() {
    static PIPE: Pipe<3> = Pipe::new();
    let reader = task::spawn(|| {
        let mut text = [0; 10];
        embedded_io::Read::read_exact(&mut &PIPE, &mut text).map(|()| text)
    });
    assert_eq!(((&PIPE).write_ready(), (&PIPE).read_ready()), (Ok(true), Ok(false)));
    write!(&mut &PIPE, "{:>10}", "bytes").unwrap();
    assert_eq!(reader.unwrap().join().unwrap().as_ref(), Ok(b"     bytes"));
}

#[test]
fn a_pipe_is_an_async_reader_and_writer() {
    static PIPE: Pipe<3> = Pipe::new();
    let reader = task::spawn(|| {
        block_on(async {
            let mut text = [0; 10];
            embedded_io_async::Read::read_exact(&mut &PIPE, &mut text).await.unwrap();
            embedded_hal_async::delay::DelayNs::delay_ms(&mut Delay, 7).await;
            text
        })
    });
    let start = time::now();
    let written = block_on(embedded_io_async::Write::write_all(&mut &PIPE, b"ten bytes!"));
    assert_eq!(written, Ok(Ok(())));
    assert_eq!(reader.unwrap().join().unwrap().as_ref(), Ok(b"ten bytes!"));
    assert_eq!(time::now(), start + Duration::from_millis(7));
}
