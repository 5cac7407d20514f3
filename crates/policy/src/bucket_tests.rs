use super::*;

/// SplitMix64: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

fn rate(amount: u64, per_ns: u64, burst: u64) -> Rate {
    Rate::new(amount, Duration::from_nanos(per_ns)).burst(burst)
}

#[test]
fn never_more_is_taken_than_burst_and_the_times_share_over_any_window() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let (amount, per_ns) = (1 + random.below(20), 1 + random.below(50));
        let burst = 1 + random.below(30);
        let mut bucket = Bucket::full(rate(amount, per_ns, burst), 0);
        // What counts is the latest time that was ever told.
        let (mut now_ns, mut latest_ns) = (0, 0);
        let mut taken: Vec<(u64, u64)> = Vec::new();
        for _ in 0..200 {
            // Mostly forwards, at times not at all, at times back.
            let step = random.below(12);
            now_ns = if step == 0 { now_ns / 2 } else { now_ns + step - 1 };
            latest_ns = latest_ns.max(now_ns);
            let tokens = random.below(burst + 2);
            if bucket.take(tokens, now_ns) {
                taken.push((latest_ns, tokens));
            }
        }
        for (first, (from_ns, _)) in taken.iter().enumerate() {
            let mut sum = 0;
            for (to_ns, tokens) in taken.iter().skip(first) {
                sum += tokens;
                let share = burst * per_ns + amount * (to_ns - from_ns);
                assert!(sum * per_ns <= share, "seed {seed}: {sum} from {from_ns} to {to_ns}");
            }
        }
    }
}

#[test]
fn it_refills_exactly_however_often_it_is_asked() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let (amount, per_ns) = (1 + random.below(1000), 1 + random.below(1000));
        let burst = 1 + random.below(1000);
        let mut asked = Bucket::full(rate(amount, per_ns, burst), 0);
        assert!(asked.take(burst, 0));
        let mut left_alone = asked.clone();
        let end_ns = random.below(3000);
        for now_ns in 0..end_ns {
            assert!(!asked.take(burst + 1, now_ns), "more than there ever is");
        }
        // The definition: whole tokens of the elapsed time, at most the burst.
        let there = (end_ns * amount / per_ns).min(burst);
        for bucket in [&mut asked, &mut left_alone] {
            assert!(bucket.holds(there, end_ns) && !bucket.holds(there + 1, end_ns));
        }
    }
}

#[test]
fn a_clock_that_stands_still_or_goes_back_adds_nothing() {
    let mut bucket = Bucket::full(rate(1, 1, 5), 100);
    assert!(bucket.take(5, 100));
    for now_ns in [100, 99, 0, 100] {
        assert!(!bucket.take(1, now_ns), "at {now_ns}");
    }
    assert!(bucket.take(2, 102) && !bucket.take(1, 102), "time that was gone back is not twice");
}

#[test]
fn the_greatest_numbers_do_not_overflow() {
    let most = u64::MAX;
    let mut bucket = Bucket::full(rate(most, most, most), 0);
    assert!(bucket.take(most, 0) && !bucket.take(1, 0));
    assert!(bucket.take(most, most), "after a whole window");
    let mut slow = Bucket::full(rate(1, most, 1), 0);
    assert!(slow.take(1, 0) && !slow.take(1, most - 1) && slow.take(1, most));
    let mut endless = Bucket::full(Rate::new(1, Duration::MAX), 0);
    assert!(endless.take(1, 0) && !endless.take(1, most - 1));
}

#[test]
fn what_never_fits_is_never_taken_and_costs_nothing() {
    let mut bucket = Bucket::full(rate(1, 10, 3), 0);
    assert!(!bucket.take(4, u64::MAX));
    assert!(bucket.take(3, u64::MAX));
    let mut none = Bucket::full(rate(0, 10, 0), 0);
    assert!(none.take(0, 5) && !none.take(1, u64::MAX));
}
