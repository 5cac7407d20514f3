//! Tests.

use alloc::vec::Vec;

use super::*;
use crate::future::block_on;
use crate::task::{self, Builder, Priority};
use crate::time::{self, Duration};

/// Reads up to `N` bytes without waiting.
fn there<const N: usize>(pipe: &Pipe<N>) -> Vec<u8> {
    let mut buffer = [0; N];
    let count = pipe.try_read(&mut buffer).unwrap();
    buffer[..count].to_vec()
}

#[test]
fn bytes_come_out_in_order_wherever_in_the_ring_they_lie() {
    let pipe = Pipe::<5>::new();
    // 2 and 3 meet the end of a ring of 5 at every place.
    for first in 0..20_u8 {
        assert_eq!(pipe.try_write(&[first, first + 1, first + 2]), Ok(3));
        assert_eq!(pipe.len(), 3);
        assert_eq!(there(&pipe), [first, first + 1, first + 2]);
        assert_eq!(pipe.try_write(&[first, first + 1]), Ok(2));
        assert_eq!(there(&pipe), [first, first + 1]);
    }
    assert!(pipe.is_empty());
}

#[test]
fn what_does_not_fit_is_not_taken() {
    let pipe = Pipe::<4>::new();
    assert_eq!(pipe.try_write(b"123456"), Ok(4));
    assert_eq!(pipe.try_write(b"5"), Err(WaitError::WouldBlock));
    let all = pipe.write_all(b"56", Duration::from_secs(1));
    assert_eq!(all, Err(WriteAllError { written: 0, reason: WaitError::TimedOut }));
    assert_eq!(there(&pipe), *b"1234");
    assert_eq!(pipe.try_read(&mut [0; 1]), Err(WaitError::WouldBlock));
    assert_eq!((pipe.try_read(&mut []), pipe.try_write(&[])), (Ok(0), Ok(0)));
}

#[test]
fn a_timeout_counts_from_the_call_however_often_the_bytes_went_to_another() {
    static PIPE: Pipe<1> = Pipe::new();
    let late = task::spawn(|| PIPE.read(&mut [0], Duration::from_secs(10))).unwrap();
    let urgent = Builder::new().priority(Priority::new(20).unwrap()).spawn(|| {
        for _ in 0..5 {
            PIPE.read(&mut [0], Timeout::Forever).unwrap();
        }
    });
    let start = time::now();
    for _ in 0..5 {
        time::sleep(Duration::from_secs(1)).unwrap();
        PIPE.try_write(b"x").unwrap();
    }
    assert_eq!(late.join().unwrap(), Err(WaitError::TimedOut));
    assert_eq!(time::now(), start + Duration::from_secs(10));
    urgent.unwrap().join().unwrap();
}

#[test]
fn a_reader_that_is_killed_when_it_was_told_leaves_the_bytes_to_the_next() {
    static PIPE: Pipe<1> = Pipe::new();
    let first = task::spawn(|| PIPE.read(&mut [0], Timeout::Forever)).unwrap();
    let second = task::spawn(|| PIPE.read(&mut [0], Timeout::Forever)).unwrap();
    task::yield_now();
    PIPE.try_write(b"x").unwrap();
    first.task().kill();
    assert_eq!(second.join().unwrap(), Ok(1));
}

#[test]
fn futures_read_and_write_with_tasks() {
    static PIPE: Pipe<2> = Pipe::new();
    let reader = task::spawn(|| {
        block_on(async {
            let mut text = Vec::new();
            while text.len() < 10 {
                let mut part = [0; 4];
                let count = PIPE.read_async(&mut part).await;
                text.extend_from_slice(&part[..count]);
            }
            text
        })
    });
    block_on(async {
        let mut rest = &b"abcde"[..];
        while !rest.is_empty() {
            rest = &rest[PIPE.write_async(rest).await..];
        }
    })
    .unwrap();
    PIPE.write_all(b"fghij", Timeout::Forever).unwrap();
    assert_eq!(reader.unwrap().join().unwrap().unwrap(), b"abcdefghij");
}
