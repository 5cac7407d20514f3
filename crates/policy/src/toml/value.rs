//! The values of a policy file: what each key takes.

use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Defect;
use crate::bucket::Rate;
use crate::log::LogLevel;
use crate::nearest::nearest;
use crate::rules::{Budgets, OnDenial, Recorded, Rules};
use crate::units::{SIZE, TIME, nanoseconds, parse_size, parse_time};

pub(super) const FUNCTION_KEYS: [&str; 12] = [
    "alarm_after",
    "allow",
    "argument_bytes",
    "bytes",
    "calls",
    "calls_per_guest_call",
    "deadline",
    "in_flight",
    "on_denial",
    "record_arguments",
    "record_results",
    "result_bytes",
];
pub(super) const SANDBOX_KEYS: [&str; 18] = [
    "alarm_after",
    "argument_bytes",
    "bytes",
    "call_cpu",
    "call_deadline",
    "call_exits",
    "calls",
    "calls_per_guest_call",
    "cpu",
    "deadline",
    "in_flight",
    "log",
    "log_bytes",
    "log_records",
    "on_denial",
    "record_arguments",
    "record_results",
    "result_bytes",
];
const RATE_KEYS: [&str; 3] = ["amount", "burst", "per"];

const COUNT: &str = "a whole number from 0 to 18446744073709551615";
const SMALL_COUNT: &str = "a whole number from 0 to 4294967295";
const BOOLEAN: &str = "true or false";
const RECORDED: &str = "\"nothing\", \"digest\", or a size of which so many bytes are kept";
const ON_DENIAL: &str = "\"error\" or \"poison\"";
const LOG: &str = "\"none\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\"";
const RATE: &str = "a table such as { amount = 10, per = \"1s\", burst = 20 }";

/// A defect, and where in the text it is.
pub(super) type Misread = (usize, Defect);

/// Reads the amount of a rate in its unit.
type Amount = fn(&Keys<'_, '_>) -> Result<u64, Misread>;

/// A key, what is above it, and its value.
pub(super) struct Keys<'a, 'i> {
    pub(super) table: &'a str,
    pub(super) key: &'a str,
    pub(super) value: &'a Spanned<DeValue<'i>>,
}

/// Reads a rule, if the key is one's; says whether it is.
pub(super) fn read_rule(keys: &Keys<'_, '_>, rules: &mut Rules) -> Result<bool, Misread> {
    match keys.key {
        "argument_bytes" => rules.argument_bytes = Some(keys.size()?),
        "result_bytes" => rules.result_bytes = Some(keys.size()?),
        "calls_per_guest_call" => rules.calls_per_guest_call = Some(keys.count()?),
        "calls" => rules.calls = Some(keys.rate(|keys| keys.count())?),
        "bytes" => rules.bytes = Some(keys.rate(|keys| keys.size())?),
        "deadline" => rules.deadline = Some(keys.time()?),
        "in_flight" => rules.in_flight = Some(keys.small_count()?),
        "record_arguments" => rules.record_arguments = Some(keys.recorded()?),
        "record_results" => rules.record_results = Some(keys.recorded()?),
        "on_denial" => rules.on_denial = Some(keys.on_denial()?),
        "alarm_after" => rules.alarm_after = Some(keys.count()?),
        _ => return Ok(false),
    }
    Ok(true)
}

/// Reads what only a sandbox has, if the key is such; says whether it is.
pub(super) fn read_budget(
    keys: &Keys<'_, '_>,
    budgets: &mut Budgets,
    log: &mut Option<LogLevel>,
) -> Result<bool, Misread> {
    match keys.key {
        "call_deadline" => budgets.call_deadline = Some(keys.time()?),
        "call_cpu" => budgets.call_cpu = Some(keys.time()?),
        "call_exits" => budgets.call_exits = Some(keys.count()?),
        "cpu" => budgets.cpu = Some(keys.rate(|keys| keys.time_ns())?),
        "log_bytes" => budgets.log_bytes = Some(keys.rate(|keys| keys.size())?),
        "log_records" => budgets.log_records = Some(keys.rate(|keys| keys.count())?),
        "log" => *log = keys.log()?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// The defect that there is no such key.
pub(super) fn unknown(table: &str, key: &str, known: &'static [&'static str]) -> Defect {
    let nearest = nearest(key, known.iter().copied());
    Defect::UnknownKey { table: table.to_owned(), key: key.to_owned(), nearest, known }
}

impl Keys<'_, '_> {
    pub(super) fn boolean(&self) -> Result<bool, Misread> {
        self.value.get_ref().as_bool().ok_or_else(|| self.wrong(BOOLEAN))
    }

    fn count(&self) -> Result<u64, Misread> {
        self.integer().ok_or_else(|| self.wrong(COUNT))
    }

    fn small_count(&self) -> Result<u32, Misread> {
        let count = self.integer().and_then(|count| u32::try_from(count).ok());
        count.ok_or_else(|| self.wrong(SMALL_COUNT))
    }

    fn size(&self) -> Result<u64, Misread> {
        let size = self.integer().or_else(|| parse_size(self.text()?));
        size.ok_or_else(|| self.wrong(SIZE))
    }

    fn time(&self) -> Result<Duration, Misread> {
        self.text().and_then(parse_time).ok_or_else(|| self.wrong(TIME))
    }

    fn time_ns(&self) -> Result<u64, Misread> {
        Ok(nanoseconds(self.time()?))
    }

    fn recorded(&self) -> Result<Recorded, Misread> {
        match self.text() {
            Some("nothing") => Ok(Recorded::Nothing),
            Some("digest") => Ok(Recorded::Digest),
            _ => self.size().map(Recorded::Bytes).map_err(|_| self.wrong(RECORDED)),
        }
    }

    fn on_denial(&self) -> Result<OnDenial, Misread> {
        match self.text() {
            Some("error") => Ok(OnDenial::Error),
            Some("poison") => Ok(OnDenial::Poison),
            _ => Err(self.wrong(ON_DENIAL)),
        }
    }

    fn log(&self) -> Result<Option<LogLevel>, Misread> {
        let Some(text) = self.text() else { return Err(self.wrong(LOG)) };
        let level = LogLevel::ALL.into_iter().find(|level| level.name() == text);
        if level.is_none() && text != "none" {
            return Err(self.wrong(LOG));
        }
        Ok(level)
    }

    /// Reads a table of amount, window and burst; a burst is as much as the amount
    /// unless it is said.
    fn rate(&self, amount: Amount) -> Result<Rate, Misread> {
        let DeValue::Table(table) = self.value.get_ref() else { return Err(self.wrong(RATE)) };
        let path = self.path();
        if let Some(key) = table.keys().find(|key| !RATE_KEYS.contains(&key.get_ref().as_ref())) {
            let defect = unknown(&format!("`{path}`"), key.get_ref(), &RATE_KEYS);
            return Err((key.span().start, defect));
        }
        let part = |key: &'static str| {
            let value = find(table, key)?;
            Some(Keys { table: &path, key, value })
        };
        let missing = |key| {
            let table = format!("`{path}`");
            (self.value.span().start, Defect::MissingKey { table, key, expected: RATE })
        };
        let per = part("per").ok_or_else(|| missing("per"))?.time()?;
        let much = amount(&part("amount").ok_or_else(|| missing("amount"))?)?;
        let burst = part("burst").map(|burst| amount(&burst)).transpose()?;
        Ok(Rate::new(much, per).burst(burst.unwrap_or(much)))
    }

    fn integer(&self) -> Option<u64> {
        let integer = self.value.get_ref().as_integer()?;
        u64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    fn text(&self) -> Option<&str> {
        self.value.get_ref().as_str()
    }

    fn path(&self) -> String {
        format!("{}.{}", self.table, self.key)
    }

    fn wrong(&self, expected: &'static str) -> Misread {
        let value = shown(self.value.get_ref());
        (self.value.span().start, Defect::Value { key: self.path(), value, expected })
    }
}

fn find<'a, 'i>(table: &'a DeTable<'i>, name: &str) -> Option<&'a Spanned<DeValue<'i>>> {
    table.iter().find(|(key, _)| key.get_ref() == name).map(|(_, value)| value)
}

/// A value as it is shown in a message.
pub(super) fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("\"{}\"", text.escape_debug()),
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.to_string(),
        DeValue::Boolean(said) => said.to_string(),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
