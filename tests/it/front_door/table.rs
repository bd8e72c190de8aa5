//! The table that a run prints.

use std::collections::BTreeMap;
use std::fmt;

#[derive(Debug, Clone, Copy, Default)]
struct Row {
    cases: usize,
    refused: usize,
    /// Bytes of refused requests that the seller got as whole requests.
    forwarded: usize,
    /// Bytes of streamed requests that the seller saw begin and never end.
    cut: usize,
    desync: usize,
    server_errors: usize,
}

/// Counts by group.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    rows: BTreeMap<&'static str, Row>,
    /// Requests that were answered with 2xx, canaries included: each is billed once, nothing else is.
    pub(crate) billed: usize,
}

impl Table {
    pub(crate) fn count(
        &mut self,
        group: &'static str,
        refused: bool,
        (forwarded, cut, desync): (usize, usize, usize),
        server_errors: usize,
    ) {
        let row = self.rows.entry(group).or_default();
        row.cases += 1;
        row.refused += usize::from(refused);
        row.forwarded += forwarded;
        row.cut += cut;
        row.desync += desync;
        row.server_errors += server_errors;
    }

    pub(crate) fn cases(&self) -> usize {
        self.rows.values().map(|row| row.cases).sum()
    }

    pub(crate) fn accepted(&self) -> usize {
        self.rows.values().map(|row| row.cases - row.refused).sum()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = ["cases", "refused", "accepted", "forwarded", "cut off", "desync", "5xx"];
        write!(f, "{:28}", "")?;
        heads.iter().try_for_each(|head| write!(f, "{head:>10}"))?;
        let mut sum = Row::default();
        let line = |f: &mut fmt::Formatter<'_>, name: &str, row: &Row| {
            let accepted = row.cases - row.refused;
            let figures = [row.cases, row.refused, accepted, row.forwarded, row.cut, row.desync, row.server_errors];
            write!(f, "\n{name:28}")?;
            figures.iter().try_for_each(|figure| write!(f, "{figure:>10}"))
        };
        for (name, row) in &self.rows {
            line(f, name, row)?;
            sum.cases += row.cases;
            sum.refused += row.refused;
            sum.forwarded += row.forwarded;
            sum.cut += row.cut;
            sum.desync += row.desync;
            sum.server_errors += row.server_errors;
        }
        line(f, "all", &sum)?;
        write!(
            f,
            "\nforwarded: bytes of refused requests that the seller got whole; cut off: bytes of streamed ones that it saw begin;"
        )?;
        write!(f, "\nbilled: {} calls, each answered with 2xx, canaries included", self.billed)
    }
}
