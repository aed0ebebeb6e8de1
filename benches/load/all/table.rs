//! The table: each figure beside its goal, in the form of a page's table.

use std::fmt;

/// The goal of a figure.
#[derive(Clone, Copy)]
pub(super) enum Aim {
    AtLeast(f64),
    AtMost(f64),
    /// There is no goal.
    Known,
}

/// One line of the table.
struct Line {
    what: String,
    aim: Aim,
    /// One for each round that counts.
    values: Vec<f64>,
    /// Rounds that do not count.
    silent: usize,
    /// The command that measures it, where this run did not.
    instead: Option<&'static str>,
}

/// Lines in the order in which they were added.
#[derive(Default)]
pub(super) struct Table {
    lines: Vec<Line>,
}

impl Table {
    /// Adds a round. A value that is not a finite number does not count.
    pub(super) fn add(&mut self, what: String, aim: Aim, value: f64) {
        let line = self.line(what, aim);
        if value.is_finite() { line.values.push(value) } else { line.silent += 1 }
    }

    /// A figure that needs a run of its own, or another flag.
    pub(super) fn owe(&mut self, what: String, aim: Aim, instead: &'static str) {
        self.line(what, aim).instead = Some(instead);
    }

    fn line(&mut self, what: String, aim: Aim) -> &mut Line {
        let at = self.lines.iter().position(|line| line.what == what).unwrap_or_else(|| {
            self.lines.push(Line { what, aim, values: Vec::new(), silent: 0, instead: None });
            self.lines.len() - 1
        });
        &mut self.lines[at]
    }

    /// The lines, below their heads.
    pub(super) fn rows(&self) -> Vec<String> {
        let head = ["| what | lowest / middle / highest | goal | |".to_owned(), "|---|---:|---:|---|".to_owned()];
        head.into_iter().chain(self.lines.iter().map(Line::text)).collect()
    }
}

impl Aim {
    /// Whether a figure meets the goal; `None` where there is none.
    fn is_met(self, value: f64) -> Option<bool> {
        match self {
            Self::AtLeast(least) => Some(value >= least),
            Self::AtMost(most) => Some(value <= most),
            Self::Known => None,
        }
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "≥ {least}"),
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::Known => f.write_str("–"),
        }
    }
}

impl Line {
    fn text(&self) -> String {
        let Self { what, aim, values, instead, .. } = self;
        let mut values = values.clone();
        values.sort_by(f64::total_cmp);
        let [Some(lowest), Some(middle), Some(highest)] = [values.first(), values.get(values.len() / 2), values.last()]
        else {
            let why = match instead {
                Some(command) => format!("not measured: run {command}"),
                None => "not counted".to_owned(),
            };
            return format!("| {what} | – | {aim} | {why} |");
        };
        let figures = match values.len() {
            1 => format!("**{middle:.2}**"),
            _ => format!("{lowest:.2} / **{middle:.2}** / {highest:.2}"),
        };
        format!("| {what} | {figures} | {aim} | {} |", self.verdict())
    }

    /// `met` or `missed` where all rounds that count agree.
    fn verdict(&self) -> String {
        let Self { values, silent, aim, .. } = self;
        let rounds = values.len();
        let verdicts: Option<Vec<bool>> = values.iter().map(|value| aim.is_met(*value)).collect();
        let mut verdict = match verdicts.map(|verdicts| verdicts.into_iter().filter(|is_met| *is_met).count()) {
            None => String::new(),
            Some(met) if met == rounds => "met".to_owned(),
            Some(0) => "missed".to_owned(),
            Some(met) => format!("undecided: met in {met} of {rounds}"),
        };
        if *silent > 0 {
            let comma = if verdict.is_empty() { "" } else { ", " };
            verdict += &format!("{comma}{silent} of {} rounds not counted", rounds + silent);
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_or_missed_where_all_rounds_say_so() {
        let mut table = Table::default();
        for (at_256, value) in [(0.5, 0.7), (0.7, 0.5), (0.5, 0.65)] {
            table.add("throughput / L0, 64 clients".to_owned(), Aim::AtLeast(0.6), value);
            table.add("throughput / L0, 256 clients".to_owned(), Aim::AtLeast(0.75), at_256);
            table.add("one hot conversation / spread".to_owned(), Aim::AtLeast(0.5), value);
        }
        for value in [-1.5, f64::NAN, 2.0] {
            table.add("CPU with traces, % more".to_owned(), Aim::AtMost(2.0), value);
            table.add("commits a sync".to_owned(), Aim::Known, value);
        }
        table.add("ready, ms".to_owned(), Aim::AtMost(100.0), 71.0);
        table.add("nothing counts".to_owned(), Aim::AtMost(1.0), f64::NAN);
        table.owe("CQL / driver (L4)".to_owned(), Aim::AtLeast(0.85), "load cql");
        let expected = [
            "| what | lowest / middle / highest | goal | |",
            "|---|---:|---:|---|",
            "| throughput / L0, 64 clients | 0.50 / **0.65** / 0.70 | ≥ 0.6 | undecided: met in 2 of 3 |",
            "| throughput / L0, 256 clients | 0.50 / **0.50** / 0.70 | ≥ 0.75 | missed |",
            "| one hot conversation / spread | 0.50 / **0.65** / 0.70 | ≥ 0.5 | met |",
            "| CPU with traces, % more | -1.50 / **2.00** / 2.00 | ≤ 2 | met, 1 of 3 rounds not counted |",
            "| commits a sync | -1.50 / **2.00** / 2.00 | – | 1 of 3 rounds not counted |",
            "| ready, ms | **71.00** | ≤ 100 | met |",
            "| nothing counts | – | ≤ 1 | not counted |",
            "| CQL / driver (L4) | – | ≥ 0.85 | not measured: run load cql |",
        ];
        assert_eq!(table.rows(), expected);
    }
}
