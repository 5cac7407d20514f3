//! A trace in the Chrome trace event format.
//!
//! <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>:
//! one JSON object for each event; `ph` says of what kind, `ts` and `dur` are in
//! microseconds. Written by hand: it is strings and numbers, and a library that
//! writes any JSON would be more code in the path of a guest's text than this.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use cellule_abi::tasks::TraceEvent as TaskEvent;

use crate::trace::{Trace, Traced};

/// The track of the exits: no task has this number.
const EXITS: u32 = 1 << 16;

/// Writes a whole trace.
pub(crate) fn json(trace: &Trace) -> String {
    let mut writer = Writer { text: String::from("{\"traceEvents\":[\n"), first: true };
    writer.name("process_name", 0, "sandbox");
    writer.name("thread_name", EXITS, "VM exits");
    for (task, name) in tracks(trace) {
        writer.name("thread_name", u32::from(task), &name);
    }
    slices(trace, &mut writer);
    for event in &trace.events {
        writer.event(event.at, &event.what);
    }
    writer.text.push_str("\n],\"displayTimeUnit\":\"ns\"}\n");
    writer.text
}

/// Every task that the trace mentions, with its name.
fn tracks(trace: &Trace) -> BTreeMap<u16, String> {
    let mut tracks = BTreeMap::new();
    for event in &trace.events {
        if let Traced::Task { task, event, .. } = &event.what
            && *event != TaskEvent::Idle
        {
            tracks.entry(*task).or_insert_with(|| match trace.names.get(task) {
                Some(name) if !name.is_empty() => format!("{name} (task {task})"),
                _ => format!("task {task}"),
            });
        }
    }
    tracks
}

/// Writes the intervals in which each task ran: from one switch to the next.
fn slices(trace: &Trace, writer: &mut Writer) {
    let mut running: Option<(u16, Duration, u32)> = None;
    let end = trace.events.last().map_or(Duration::ZERO, |event| event.at);
    for event in &trace.events {
        let Traced::Task { task, event: what, detail } = event.what else { continue };
        let next = match (what, running) {
            (TaskEvent::Runs, _) => Some((task, event.at, detail)),
            (TaskEvent::Idle, _) => None,
            (TaskEvent::Ended, Some((current, ..))) if current == task => None,
            _ => continue,
        };
        writer.slice(running, event.at);
        running = next;
    }
    writer.slice(running, end);
}

struct Writer {
    text: String,
    first: bool,
}

impl Writer {
    /// Starts an event: what all have.
    fn begin(&mut self, phase: char, track: u32, name: &str) {
        let separator = if self.first { "" } else { ",\n" };
        self.first = false;
        let _ = write!(self.text, "{separator}{{\"ph\":\"{phase}\",\"pid\":1,\"tid\":{track},");
        self.text.push_str("\"name\":");
        self.string(name);
    }

    fn at(&mut self, key: &str, at: Duration) {
        let _ = write!(self.text, ",\"{key}\":{}.{:03}", at.as_micros(), at.subsec_nanos() % 1000);
    }

    fn end(&mut self) {
        self.text.push('}');
    }

    /// Names the process or a track.
    fn name(&mut self, what: &str, track: u32, name: &str) {
        self.begin('M', track, what);
        self.text.push_str(",\"args\":{\"name\":");
        self.string(name);
        self.text.push('}');
        self.end();
    }

    fn slice(&mut self, running: Option<(u16, Duration, u32)>, until: Duration) {
        let Some((task, from, priority)) = running else { return };
        self.begin('X', u32::from(task), "runs");
        self.at("ts", from);
        self.at("dur", until.saturating_sub(from));
        let _ = write!(self.text, ",\"args\":{{\"priority\":{priority}}}");
        self.end();
    }

    fn event(&mut self, at: Duration, what: &Traced) {
        match what {
            Traced::Task { event: TaskEvent::Runs | TaskEvent::Idle, .. } => {}
            Traced::Task { task, event, detail } => {
                self.begin('i', u32::from(*task), task_event(*event));
                self.at("ts", at);
                let _ = write!(self.text, ",\"s\":\"t\",\"args\":{{\"detail\":{detail}}}");
                self.end();
            }
            Traced::Exit { why, took } => {
                self.begin('X', EXITS, why.text());
                self.at("ts", at);
                self.at("dur", *took);
                self.end();
            }
            Traced::Upcall => {
                self.begin('i', EXITS, "upcall");
                self.at("ts", at);
                self.text.push_str(",\"s\":\"t\"");
                self.end();
            }
            Traced::HostCall { request, task, function } => {
                self.host_call('b', at, *request, *task, function);
            }
            Traced::HostReply { request, task } => self.host_call('e', at, *request, *task, ""),
        }
    }

    /// One end of a host call: those of one task may overlap.
    fn host_call(&mut self, phase: char, at: Duration, request: u64, task: u32, function: &str) {
        self.begin(phase, task, function);
        self.at("ts", at);
        let _ = write!(self.text, ",\"cat\":\"host call\",\"id\":\"{request:#x}\"");
        self.end();
    }

    /// Writes a JSON string: RFC 8259, section 7.
    fn string(&mut self, text: &str) {
        self.text.push('"');
        for character in text.chars() {
            match character {
                '"' | '\\' => self.text.extend(['\\', character]),
                // Also what is allowed, but ends a line for some readers.
                '\0'..='\u{1f}' | '\u{7f}' | '\u{2028}' | '\u{2029}' => {
                    let _ = write!(self.text, "\\u{:04x}", u32::from(character));
                }
                _ => self.text.push(character),
            }
        }
        self.text.push('"');
    }
}

fn task_event(event: TaskEvent) -> &'static str {
    match event {
        TaskEvent::Runs => "runs",
        TaskEvent::Idle => "idle",
        TaskEvent::Created => "created",
        TaskEvent::Ended => "ended",
        TaskEvent::Ready => "ready",
        TaskEvent::Blocked => "blocked",
        TaskEvent::Upcall => "upcall",
        TaskEvent::HostCall => "host call",
        TaskEvent::HostReply => "host reply",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{ExitKind, TraceEvent};

    fn trace(events: &[(u64, Traced)], name: &str) -> Trace {
        let mut trace = Trace::default();
        trace.names.insert(1, name.to_owned());
        trace.events = events
            .iter()
            .map(|(ns, what)| TraceEvent { at: Duration::from_nanos(*ns), what: what.clone() })
            .collect();
        trace
    }

    fn task(task: u16, event: TaskEvent) -> Traced {
        Traced::Task { task, event, detail: 7 }
    }

    #[test]
    fn a_task_runs_from_one_switch_to_the_next() {
        let events = [
            (1_000, task(1, TaskEvent::Runs)),
            (2_500, task(2, TaskEvent::Runs)),
            (4_000, task(2, TaskEvent::Idle)),
            (5_000, task(1, TaskEvent::Runs)),
            (6_000, Traced::Exit { why: ExitKind::Wait, took: Duration::from_nanos(250) }),
        ];
        let json = json(&trace(&events, "worker"));
        for (tid, ts, dur) in [(1, "1.000", "1.500"), (2, "2.500", "1.500"), (1, "5.000", "1.000")]
        {
            let expected = format!(
                r#"{{"ph":"X","pid":1,"tid":{tid},"name":"runs","ts":{ts},"dur":{dur},"args":{{"priority":7}}}}"#
            );
            assert!(json.contains(&expected), "{expected} in {json}");
        }
        assert!(json.contains(r#""name":"wait","ts":6.000,"dur":0.250}"#), "{json}");
        assert!(json.contains(r#""args":{"name":"worker (task 1)"}"#), "{json}");
    }

    #[test]
    fn no_name_of_a_guest_ends_a_string() {
        let text = json(&trace(&[(0, task(1, TaskEvent::Runs))], "a\"b\\c\nd\u{2028}"));
        assert!(text.contains(r#""a\"b\\c\u000ad\u2028 (task 1)""#), "{text}");
    }

    #[test]
    fn an_empty_trace_is_still_json() {
        let text = json(&Trace::default());
        assert!(text.starts_with("{\"traceEvents\":[") && text.trim_end().ends_with('}'));
    }
}
