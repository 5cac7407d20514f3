use alloc::boxed::Box;
use alloc::vec::Vec;

use super::*;
use crate::future::block_on;
use crate::sync::tests_support::{Counted, Drops, in_handler, poll_once, spawn_at};
use crate::task::{self, JoinHandle};
use crate::time::{self, Duration, Instant};

type Numbers = Port<Box<u32>, Box<u32>>;
type Sent = Result<Box<u32>, SendError<Box<u32>>>;

fn send(port: &'static Numbers, priority: u8, number: u32, timeout: Timeout) -> JoinHandle<Sent> {
    spawn_at(priority, move || port.send(Box::new(number), timeout))
}

fn not_received(number: u32, reason: WaitError) -> Sent {
    Err(SendError::NotReceived { message: Box::new(number), reason })
}

#[test]
fn a_message_goes_to_the_server_and_its_reply_back() {
    static PORT: Numbers = Port::new();
    // The server waits first, then the client does.
    let server = spawn_at(20, || {
        for _ in 0..2 {
            let (message, reply) = PORT.receive(Timeout::Forever).unwrap();
            assert_eq!(reply.reply(Box::new(*message + 1)), Ok(()));
        }
    });
    assert_eq!(PORT.send(Box::new(1), Timeout::Forever), Ok(Box::new(2)));
    assert_eq!(PORT.send(Box::new(2), Duration::from_secs(1)), Ok(Box::new(3)));
    server.join().unwrap();
    let client = send(&PORT, 20, 3, Timeout::Forever);
    let (message, reply) = PORT.receive(Timeout::Now).unwrap();
    assert_eq!((*message, client.task().ended()), (3, None));
    assert!(reply.is_awaited());
    reply.reply(Box::new(4)).unwrap();
    assert_eq!(client.join().unwrap(), Ok(Box::new(4)));
}

#[test]
fn clients_and_servers_are_chosen_by_priority_then_by_time() {
    static PORT: Numbers = Port::new();
    let clients = [(9, 2), (9, 3), (20, 1)].map(|(p, n)| send(&PORT, p, n, Timeout::Forever));
    for expected in 1..=3 {
        let (message, reply) = PORT.receive(Timeout::Now).unwrap();
        assert_eq!(*message, expected);
        reply.reply(message).unwrap();
    }
    assert_eq!(clients.map(|client| *client.join().unwrap().unwrap()), [2, 3, 1]);
    let serve = |name: u32| move || PORT.receive(Timeout::Forever).unwrap().1.reply(Box::new(name));
    let servers = [spawn_at(9, serve(2)), spawn_at(9, serve(3)), spawn_at(20, serve(1))];
    let replies = [(); 3].map(|()| *PORT.send(Box::new(0), Timeout::Forever).unwrap());
    assert_eq!(replies, [1, 2, 3]);
    servers.into_iter().for_each(|server| assert_eq!(server.join().unwrap(), Ok(())));
}

#[test]
fn a_message_that_nobody_received_comes_back() {
    static PORT: Numbers = Port::new();
    let start = time::now();
    let sent = |timeout: Timeout| PORT.send(Box::new(5), timeout);
    assert_eq!(sent(Timeout::Now), not_received(5, WaitError::WouldBlock));
    assert_eq!(sent(Duration::from_secs(1).into()), not_received(5, WaitError::TimedOut));
    assert_eq!(sent(start.into()), not_received(5, WaitError::TimedOut));
    assert_eq!(time::now(), start + Duration::from_secs(1));
    let cancelled = send(&PORT, 9, 6, Timeout::At(Instant::MAX));
    assert!(cancelled.task().cancel_wait());
    assert_eq!(cancelled.join().unwrap(), not_received(6, WaitError::Cancelled));
    send(&PORT, 9, 7, Timeout::Forever).task().kill();
    assert_eq!(PORT.receive(Timeout::Now).err(), Some(WaitError::WouldBlock));
}

#[test]
fn a_reply_that_comes_too_late_comes_back() {
    static PORT: Numbers = Port::new();
    let late = send(&PORT, 9, 1, Duration::from_secs(1).into());
    let (_, reply) = PORT.receive(Timeout::Forever).unwrap();
    time::sleep(Duration::from_secs(2)).unwrap();
    assert!(!reply.is_awaited());
    // Another wait of the same client's is not what the reply is for.
    assert_eq!(late.join().unwrap(), Err(SendError::NotAnswered(WaitError::TimedOut)));
    assert_eq!(reply.reply(Box::new(2)), Err(Gone(Box::new(2))));
}

#[test]
fn a_reply_is_not_for_the_clients_next_message() {
    static PORT: Numbers = Port::new();
    let client = spawn_at(9, || {
        let first = PORT.send(Box::new(1), Duration::from_secs(1));
        (first, PORT.send(Box::new(2), Timeout::Forever))
    });
    let (_, first) = PORT.receive(Timeout::Forever).unwrap();
    let (_, second) = PORT.receive(Timeout::Forever).unwrap();
    assert_eq!(first.reply(Box::new(10)), Err(Gone(Box::new(10))));
    second.reply(Box::new(20)).unwrap();
    let timed_out = Err(SendError::NotAnswered(WaitError::TimedOut));
    assert_eq!(client.join().unwrap(), (timed_out, Ok(Box::new(20))));
}

#[test]
fn a_killed_client_is_not_written_to() {
    static PORT: Numbers = Port::new();
    let client = send(&PORT, 9, 1, Timeout::Forever);
    let (_, reply) = PORT.receive(Timeout::Forever).unwrap();
    client.task().kill();
    let other = spawn_at(9, || {
        // On the same stack, and waiting as well.
        let zeros = [0_u8; 512];
        let _ = PORT.send(Box::new(3), Timeout::Forever);
        zeros
    });
    assert_eq!(reply.reply(Box::new(u32::MAX)), Err(Gone(Box::new(u32::MAX))));
    PORT.receive(Timeout::Now).unwrap().1.reply(Box::new(0)).unwrap();
    assert_eq!(other.join().unwrap(), [0; 512]);
}

#[test]
fn a_client_is_told_that_its_server_has_gone() {
    static PORT: Numbers = Port::new();
    let peer_died = Err(SendError::NotAnswered(WaitError::PeerDied));
    let dropped = send(&PORT, 9, 1, Timeout::Forever);
    drop(PORT.receive(Timeout::Now).unwrap());
    assert_eq!(dropped.join().unwrap(), peer_died);
    let server = || {
        let received = PORT.receive(Timeout::Forever).unwrap();
        time::sleep(Duration::MAX).unwrap();
        drop(received);
    };
    // Killed before it has answered, and killed before it ran with the message.
    let (first, second) = (spawn_at(9, server), spawn_at(9, server));
    second.task().set_priority(task::Priority::LOWEST);
    let clients = [send(&PORT, 9, 1, Timeout::Forever), send(&PORT, 9, 2, Timeout::Forever)];
    first.task().kill();
    assert_eq!(clients[1].task().ended(), None);
    second.task().kill();
    clients.into_iter().for_each(|client| assert_eq!(client.join().unwrap(), peer_died));
}

#[test]
fn a_received_client_can_be_called_off() {
    static PORT: Numbers = Port::new();
    let client = send(&PORT, 9, 1, Timeout::Forever);
    let (_, reply) = PORT.receive(Timeout::Now).unwrap();
    assert!(client.task().cancel_wait());
    assert_eq!(client.join().unwrap(), Err(SendError::NotAnswered(WaitError::Cancelled)));
    assert!(reply.reply(Box::new(1)).is_err());
}

#[test]
fn a_receive_in_vain_says_why() {
    static PORT: Numbers = Port::new();
    let why = |timeout: Timeout| PORT.receive(timeout).err();
    assert_eq!(why(Timeout::Now), Some(WaitError::WouldBlock));
    assert_eq!(why(Duration::from_secs(1).into()), Some(WaitError::TimedOut));
    let cancelled = spawn_at(9, || PORT.receive(Timeout::Forever).err());
    assert!(cancelled.task().cancel_wait());
    assert_eq!(cancelled.join().unwrap(), Some(WaitError::Cancelled));
    spawn_at(9, || PORT.receive(Timeout::Forever).is_ok()).task().kill();
    let client = send(&PORT, 9, 1, Timeout::Forever);
    assert_eq!(client.task().ended(), None, "a killed server received nothing");
    PORT.receive(Timeout::Now).unwrap().1.reply(Box::new(1)).unwrap();
}

#[test]
fn a_timers_function_replies_and_neither_sends_nor_receives() {
    static PORT: Numbers = Port::new();
    static REPLY: std::sync::Mutex<Option<ReplyHandle<Box<u32>>>> = std::sync::Mutex::new(None);
    let client = send(&PORT, 9, 1, Timeout::Forever);
    let waits = send(&PORT, 9, 2, Timeout::Forever);
    *REPLY.lock().unwrap() = Some(PORT.receive(Timeout::Now).unwrap().1);
    let (sent, received) = in_handler(|| {
        REPLY.lock().unwrap().take().unwrap().reply(Box::new(7)).unwrap();
        (PORT.send(Box::new(3), Timeout::Forever), PORT.receive(Timeout::Now).err())
    });
    assert_eq!(sent, not_received(3, WaitError::WrongContext));
    assert_eq!(received, Some(WaitError::WrongContext));
    assert_eq!(client.join().unwrap(), Ok(Box::new(7)));
    waits.task().kill();
}

#[test]
fn every_message_and_reply_is_dropped_once() {
    static PORT: Port<Counted, Counted> = Port::new();
    let (messages, replies) = (Drops::default(), Drops::default());
    let values = replies.clone();
    let server = spawn_at(9, move || {
        for n in 0..3 {
            let (_, reply) = PORT.receive(Timeout::Forever).unwrap();
            time::sleep(Duration::from_secs(u64::from(n))).unwrap();
            drop(reply.reply(values.value(n)));
        }
    });
    for _ in 0..3 {
        drop(PORT.send(messages.value(0), Duration::from_millis(1500)));
    }
    drop(PORT.send(messages.value(0), Timeout::Now));
    server.join().unwrap();
    assert_eq!((messages.count(), replies.count()), (4, 3));
}

#[test]
fn hundreds_of_clients_are_served() {
    static PORT: Numbers = Port::new();
    let servers = [(); 3].map(|()| {
        spawn_at(9, || {
            while let Ok((message, reply)) = PORT.receive(Timeout::Forever) {
                task::yield_now();
                reply.reply(Box::new(*message * 2)).unwrap();
            }
        })
    });
    let clients: Vec<_> = (0..300).map(|n| send(&PORT, 8, n, Timeout::Forever)).collect();
    for (n, client) in (0_u32..).zip(clients) {
        assert_eq!(client.join().unwrap(), Ok(Box::new(n * 2)));
    }
    servers.into_iter().for_each(|server| server.task().kill());
}

type Asked = core::pin::Pin<Box<dyn Future<Output = Sent> + Send>>;

fn ask(port: &'static Numbers, number: u32) -> Asked {
    let mut asked: Asked = Box::pin(port.send_async(Box::new(number)));
    assert!(poll_once(asked.as_mut()).is_none());
    asked
}

#[test]
fn a_future_s_message_goes_to_the_server_and_its_reply_back() {
    static PORT: Numbers = Port::new();
    // The server waits first; then the client does; then both are futures.
    let serve = |received: (Box<u32>, ReplyHandle<Box<u32>>)| {
        let (message, reply) = received;
        reply.reply(Box::new(*message + 1))
    };
    let server = spawn_at(20, move || serve(PORT.receive(Timeout::Forever).unwrap()));
    assert_eq!(block_on(PORT.send_async(Box::new(1))).unwrap(), Ok(Box::new(2)));
    assert_eq!(server.join().unwrap(), Ok(()));
    let client = spawn_at(20, || block_on(PORT.send_async(Box::new(2))).unwrap());
    assert_eq!(serve(PORT.receive(Timeout::Now).unwrap()), Ok(()));
    assert_eq!(client.join().unwrap(), Ok(Box::new(3)));
    let server = spawn_at(20, move || serve(block_on(PORT.receive_async()).unwrap()));
    assert_eq!(block_on(PORT.send_async(Box::new(3))).unwrap(), Ok(Box::new(4)));
    assert_eq!(server.join().unwrap(), Ok(()));
    // All in one task.
    let mut asked = ask(&PORT, 4);
    assert_eq!(serve(block_on(PORT.receive_async()).unwrap()), Ok(()));
    assert_eq!(poll_once(asked.as_mut()), Some(Ok(Box::new(5))));
}

#[test]
fn tasks_and_futures_are_received_in_one_line() {
    static PORT: Numbers = Port::new();
    let first = send(&PORT, 8, 1, Timeout::Forever);
    task::yield_now();
    let mut second = ask(&PORT, 2);
    let urgent = spawn_at(20, || block_on(PORT.send_async(Box::new(0))).unwrap());
    for expected in 0..3 {
        let (message, reply) = PORT.receive(Timeout::Now).unwrap();
        assert_eq!(*message, expected);
        reply.reply(message).unwrap();
    }
    assert_eq!((urgent.join().unwrap(), first.join().unwrap()), (Ok(Box::new(0)), Ok(Box::new(1))));
    assert_eq!(poll_once(second.as_mut()), Some(Ok(Box::new(2))));
}

#[test]
fn a_dropped_client_is_not_received_or_no_longer_awaits_its_reply() {
    static PORT: Numbers = Port::new();
    drop(ask(&PORT, 1));
    assert_eq!(PORT.receive(Timeout::Now).err(), Some(WaitError::WouldBlock));
    let received = ask(&PORT, 2);
    let (message, reply) = PORT.receive(Timeout::Now).unwrap();
    assert!(*message == 2 && reply.is_awaited());
    drop(received);
    assert!(!reply.is_awaited());
    assert_eq!(reply.reply(Box::new(3)), Err(Gone(Box::new(3))));
    let answered = ask(&PORT, 4);
    PORT.receive(Timeout::Now).unwrap().1.reply(Box::new(5)).unwrap();
    drop(answered);
}

#[test]
fn a_future_is_told_that_its_server_has_gone() {
    static PORT: Numbers = Port::new();
    let peer_died = Some(Err(SendError::NotAnswered(WaitError::PeerDied)));
    let mut asked = ask(&PORT, 1);
    drop(PORT.receive(Timeout::Now).unwrap());
    assert_eq!(poll_once(asked.as_mut()), peer_died);
    let server = spawn_at(9, || {
        let received = block_on(PORT.receive_async());
        time::sleep(Duration::MAX).unwrap();
        drop(received);
    });
    let mut asked = ask(&PORT, 2);
    time::sleep(Duration::from_secs(1)).unwrap();
    server.task().kill();
    assert_eq!(poll_once(asked.as_mut()), peer_died);
}

#[test]
fn a_client_of_which_a_server_s_future_was_told_goes_to_the_next() {
    static PORT: Numbers = Port::new();
    let serve = || PORT.receive(Timeout::Forever).unwrap().1.reply(Box::new(9));
    // The future is dropped.
    let mut dropped = Box::pin(PORT.receive_async());
    assert!(poll_once(dropped.as_mut()).is_none());
    let next = spawn_at(8, serve);
    task::yield_now();
    let client = send(&PORT, 20, 1, Timeout::Forever);
    assert_eq!((client.task().ended(), next.task().ended()), (None, None));
    drop(dropped);
    assert_eq!((client.join().unwrap(), next.join().unwrap()), (Ok(Box::new(9)), Ok(())));
    // Its task is killed.
    let killed = spawn_at(20, || {
        let mut future = Box::pin(PORT.receive_async());
        assert!(poll_once(future.as_mut()).is_none());
        time::sleep(Duration::MAX)
    });
    let next = spawn_at(9, serve);
    let client = send(&PORT, 20, 1, Timeout::Forever);
    killed.task().kill();
    assert_eq!((client.join().unwrap(), next.join().unwrap()), (Ok(Box::new(9)), Ok(())));
}

#[test]
fn a_client_whose_task_is_killed_sends_anew_or_learns_that_it_was_cancelled() {
    static PORT: Numbers = Port::new();
    static SHARED: std::sync::Mutex<Vec<Asked>> = std::sync::Mutex::new(Vec::new());
    let killed = spawn_at(20, || {
        SHARED.lock().unwrap().extend((0..3).map(|n| ask(&PORT, n)));
        time::sleep(Duration::MAX)
    });
    // One is received, one is answered, one is neither.
    let (_, received) = PORT.receive(Timeout::Now).unwrap();
    PORT.receive(Timeout::Now).unwrap().1.reply(Box::new(7)).unwrap();
    killed.task().kill();
    assert!(!received.is_awaited());
    let mut asked = SHARED.lock().unwrap().drain(..).collect::<Vec<_>>();
    let cancelled = Err(SendError::NotAnswered(WaitError::Cancelled));
    assert_eq!(poll_once(asked[0].as_mut()), Some(cancelled));
    assert_eq!(poll_once(asked[1].as_mut()), Some(Ok(Box::new(7))));
    assert_eq!(poll_once(asked[2].as_mut()), None);
    PORT.receive(Timeout::Now).unwrap().1.reply(Box::new(8)).unwrap();
    assert_eq!(poll_once(asked[2].as_mut()), Some(Ok(Box::new(8))));
}

#[test]
fn every_message_and_reply_of_a_future_is_dropped_once() {
    static PORT: Port<Counted, Counted> = Port::new();
    let (messages, replies) = (Drops::default(), Drops::default());
    let begin = |polled: bool| {
        let mut asked = Box::pin(PORT.send_async(messages.value(0)));
        assert!(!polled || poll_once(asked.as_mut()).is_none());
        asked
    };
    drop(begin(false));
    drop(begin(true));
    let received = begin(true);
    let (_, reply) = PORT.receive(Timeout::Now).unwrap();
    drop(received);
    drop(reply.reply(replies.value(0)));
    for hears in [true, false] {
        let mut answered = begin(true);
        drop(PORT.receive(Timeout::Now).unwrap().1.reply(replies.value(0)));
        assert_eq!(hears, hears && poll_once(answered.as_mut()).is_some());
    }
    assert_eq!((messages.count(), replies.count()), (5, 3));
}
