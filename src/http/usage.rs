//! `/usage`: tokens and credits used by models, by day.

use actors::clock::Millis;
use actors::usage::{DAY_MILLIS, Day, Sum};
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;

use super::answer::json;
use super::call::Allowed;
use super::caller::ReadConfiguration;
use super::query::{Query, pointer};
use crate::problem::{Fault, Problem};
use crate::wire::time;

/// Days of one answer.
const MAX_DAYS: u32 = 366;
/// Days before the last one, unless the request sets the first.
const USUAL_DAYS: u32 = 29;

#[derive(Serialize)]
struct UsageView {
    from: String,
    to: String,
    data: Vec<DayView>,
    total: SumView,
}

#[derive(Serialize)]
struct DayView {
    date: String,
    #[serde(flatten)]
    sum: SumView,
    agents: Vec<AgentView>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AgentView {
    agent_id: String,
    #[serde(flatten)]
    sum: SumView,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SumView {
    turns: u64,
    model_calls: u64,
    input_tokens: u64,
    output_tokens: u64,
    credits: f64,
}

impl SumView {
    fn of(sum: Sum) -> Self {
        Self {
            turns: sum.turns,
            model_calls: sum.calls,
            input_tokens: sum.input_tokens,
            output_tokens: sum.output_tokens,
            // Exact up to nine billion credits.
            credits: sum.millicredits as f64 / 1000.0,
        }
    }
}

/// `GET /usage?from=&to=`: days in UTC, both inclusive; days without use are left out.
///
/// # Errors
/// 400 for an invalid date or range.
pub(super) async fn get(Allowed { call, .. }: Allowed<ReadConfiguration>, query: Query) -> Result<Response, Problem> {
    let ((from, to), ()) = Problem::both(range(&query, Day::of(call.app.now())), query.check())?;
    let mut data = Vec::new();
    let mut total = Sum::default();
    for day in (from.0..=to.0).map(Day) {
        let used = call.node().used(call.caller.address, day).await?;
        if used.is_empty() {
            continue;
        }
        let sum = used.values().copied().fold(Sum::default(), Sum::and);
        total = total.and(sum);
        let agents = used.iter().map(|(id, sum)| AgentView { agent_id: id.clone(), sum: SumView::of(*sum) });
        data.push(DayView { date: date(day), sum: SumView::of(sum), agents: agents.collect() });
    }
    Ok(json(StatusCode::OK, &UsageView { from: date(from), to: date(to), data, total: SumView::of(total) }))
}

/// The requested days.
fn range(query: &Query, today: Day) -> Result<(Day, Day), Problem> {
    let mut faults = Vec::new();
    let mut day = |name: &str, absent: Day| match query.given(name) {
        Some(text) => parse(text).unwrap_or_else(|| {
            let message = "must be a date such as 2025-01-31";
            faults.push(Fault::new(pointer(name), "invalid_datetime", message));
            absent
        }),
        None => absent,
    };
    let to = day("to", today);
    let from = day("from", Day(to.0.saturating_sub(USUAL_DAYS)));
    if faults.is_empty() && from > to {
        faults.push(Fault::new("/from", "out_of_range", "must not be after to"));
    } else if faults.is_empty() && to.0 - from.0 >= MAX_DAYS {
        let message = format!("must be at most {} days before to", MAX_DAYS - 1);
        faults.push(Fault::new("/from", "out_of_range", message));
    }
    if faults.is_empty() { Ok((from, to)) } else { Err(Problem::invalid(faults)) }
}

fn parse(text: &str) -> Option<Day> {
    let at = (text.len() == 10).then(|| time::parse(&format!("{text}T00:00:00Z")))??;
    Some(Day::of(Millis(u64::try_from(at).ok()?)))
}

fn date(day: Day) -> String {
    time::format(Millis(u64::from(day.0) * DAY_MILLIS)).as_str()[..10].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Result<(String, String), Vec<String>> {
        let query = Query::parse(Some(query)).unwrap();
        let of = |problem: Problem| problem.faults.iter().map(|f| format!("{} {}", f.code, f.pointer)).collect();
        range(&query, Day(20_089)).map(|(from, to)| (date(from), date(to))).map_err(of)
    }

    #[test]
    fn the_last_thirty_days_are_meant_unless_others_are_named() {
        let days = |from: &str, to: &str| Ok((from.to_owned(), to.to_owned()));
        assert_eq!(asked(""), days("2024-12-03", "2025-01-01"));
        assert_eq!(asked("from=2024-02-29&to=2024-03-01"), days("2024-02-29", "2024-03-01"));
        assert_eq!(asked("to=2024-03-30&from="), days("2024-03-01", "2024-03-30"));
        assert_eq!(asked("from=2024-01-01&to=2024-12-31"), days("2024-01-01", "2024-12-31"));
    }

    #[test]
    fn an_invalid_date_or_range_is_refused_with_its_pointer() {
        let faults = |faults: &[&str]| Err(faults.iter().map(|&fault| fault.to_owned()).collect());
        assert_eq!(asked("from=x&to=2025-13-01"), faults(&["invalid_datetime /to", "invalid_datetime /from"]));
        assert_eq!(asked("from=2025-1-1"), faults(&["invalid_datetime /from"]));
        assert_eq!(asked("from=1969-12-31"), faults(&["invalid_datetime /from"]));
        assert_eq!(asked("from=2025-01-02&to=2025-01-01"), faults(&["out_of_range /from"]));
        assert_eq!(asked("from=2024-01-01&to=2025-01-01"), faults(&["out_of_range /from"]));
    }

    #[test]
    fn a_refusal_of_too_many_days_names_the_most_that_are_allowed() {
        let asked = |days: u32| {
            let from = date(Day(20_089 - days));
            range(&Query::parse(Some(&format!("from={from}&to=2025-01-01"))).unwrap(), Day(20_089))
        };
        let refusal = asked(MAX_DAYS).unwrap_err();
        let named: u32 = refusal.faults[0].message.split(' ').find_map(|word| word.parse().ok()).unwrap();
        assert!(asked(named).is_ok() && asked(named + 1).is_err(), "{}", refusal.faults[0].message);
    }
}
