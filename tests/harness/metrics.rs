//! Reads what `/metrics` prints.

/// One scrape.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// As it came.
    pub(crate) text: String,
}

impl Metrics {
    /// The sum over all series of a name that carry these labels; zero if there is none.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let lines = self.text.lines().filter(|line| !line.starts_with('#'));
        let values = lines.filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (there, set) = series.split_once('{').unwrap_or((series, ""));
            let fits = there == name && wanted.iter().all(|label| set.contains(label.as_str()));
            fits.then(|| value.parse::<f64>().unwrap())
        });
        values.sum()
    }

    /// What is wrong with it by the rules that `promtool check metrics` applies and that can be told from a scrape:
    /// help and type before each family, counters end in `_total`, base units, no repeated series.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let (mut families, mut series) = (Vec::new(), std::collections::BTreeSet::new());
        for line in self.text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or((rest, ""));
                if kind == "counter" && !name.ends_with("_total") {
                    faults.push(format!("{name}: a counter's name ends in _total"));
                }
                if kind != "counter" && name.ends_with("_total") {
                    faults.push(format!("{name}: only a counter's name ends in _total"));
                }
                if ["_ms", "_milliseconds", "_us", "_kb", "_count", "_bucket"].iter().any(|end| name.ends_with(end)) {
                    faults.push(format!("{name}: not in a base unit, or a reserved ending"));
                }
                families.push(name.to_owned());
            } else if let Some(rest) = line.strip_prefix("# HELP ") {
                if rest.split_once(' ').is_none_or(|(_, help)| help.trim().is_empty()) {
                    faults.push(format!("{rest}: no help"));
                }
            } else if let Some((one, value)) = line.rsplit_once(' ') {
                if value.parse::<f64>().is_err() {
                    faults.push(format!("{line}: no number"));
                }
                if !series.insert(one.to_owned()) {
                    faults.push(format!("{one}: stands twice"));
                }
                let name = one.split('{').next().unwrap_or_default();
                let family = |known: &String| {
                    name.strip_prefix(known.as_str())
                        .is_some_and(|end| ["", "_bucket", "_sum", "_count"].contains(&end))
                };
                if !families.iter().any(family) {
                    faults.push(format!("{name}: no type before it"));
                }
            } else if !line.is_empty() {
                faults.push(format!("{line}: no series"));
            }
        }
        faults
    }
}
