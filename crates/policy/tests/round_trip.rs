//! Any policy, written and read again, is the same policy.

use std::time::Duration;

use cellule_policy::{Budgets, LogLevel, OnDenial, Policy, Rate, Recorded, Rules};

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

    /// A number of any magnitude, often a whole number of units.
    fn number(&mut self) -> u64 {
        let magnitude = self.next() % 64;
        match self.next() % 3 {
            0 => self.next() >> magnitude,
            1 => (self.next() % 1000) << (magnitude / 2),
            _ => (self.next() % 1000) * 1_000_000,
        }
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.next().is_multiple_of(2).then(|| make(self))
    }

    fn rate(&mut self) -> Rate {
        Rate::new(self.number(), self.time()).burst(self.number())
    }

    fn time(&mut self) -> Duration {
        Duration::from_nanos(self.number())
    }

    fn recorded(&mut self) -> Recorded {
        match self.next() % 3 {
            0 => Recorded::Nothing,
            1 => Recorded::Digest,
            _ => Recorded::Bytes(self.number()),
        }
    }

    fn rules(&mut self) -> Rules {
        let mut rules = Rules::default();
        rules.argument_bytes = self.maybe(Self::number);
        rules.result_bytes = self.maybe(Self::number);
        rules.calls_per_guest_call = self.maybe(Self::number);
        rules.calls = self.maybe(Self::rate);
        rules.bytes = self.maybe(Self::rate);
        rules.deadline = self.maybe(Self::time);
        rules.in_flight = self.maybe(|random| random.next().to_le_bytes()[0].into());
        rules.record_arguments = self.maybe(Self::recorded);
        rules.record_results = self.maybe(Self::recorded);
        let actions = [OnDenial::Error, OnDenial::Poison];
        rules.on_denial =
            self.maybe(|random| actions[usize::from(random.next().is_multiple_of(2))]);
        rules.alarm_after = self.maybe(Self::number);
        rules
    }

    fn budgets(&mut self) -> Budgets {
        let mut budgets = Budgets::default();
        budgets.call_deadline = self.maybe(Self::time);
        budgets.call_cpu = self.maybe(Self::time);
        budgets.call_exits = self.maybe(Self::number);
        budgets.cpu = self.maybe(Self::rate);
        budgets.log_bytes = self.maybe(Self::rate);
        budgets.log_records = self.maybe(Self::rate);
        budgets
    }
}

#[test]
fn every_policy_is_read_as_it_was_written() {
    for seed in 0..2000 {
        let mut random = Random(seed);
        let mut policy = Policy::deny_all()
            .with_rules(random.rules())
            .with_budgets(random.budgets())
            .allow_with("plain", random.rules())
            .allow_with("store:write.v-2", random.rules())
            .deny("format_disk");
        if let Some(level) = random.maybe(|_| LogLevel::Debug) {
            policy = policy.allow_log(level);
        }
        let text = policy.to_toml();
        assert_eq!(Policy::from_toml(&text).as_ref(), Ok(&policy), "seed {seed}:\n{text}");
    }
}
