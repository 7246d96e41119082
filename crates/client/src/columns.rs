//! A list of jobs as columns that fit a width: the columns that matter least are left out first. Pure text.

use jiff::Timestamp;

use super::gateway::WireJobEdge;
use super::line;
use super::style;

/// The blanks between two columns.
const GAP: usize = 2;
/// The narrowest column of names of jobs.
const JOB_MIN: usize = 16;
/// The narrowest column that may be left out; a wider one is cut to the width.
const OPTIONAL_MIN: usize = 14;

/// The headings, in the order of the columns.
const HEADINGS: [&str; COLUMNS] =
    ["JOB", "STATE", "PROGRESS", "CHANGED", "KIND", "ORIGIN", "LABELS", "DETAIL"];
/// The number of columns.
const COLUMNS: usize = 8;
/// The column of the names, which is cut in its middle.
const JOB: usize = 0;
/// The column of the states, which is coloured.
const STATE: usize = 1;
/// The columns that are shown where there is room, the first of them first.
const OPTIONAL: [usize; 4] = [7, 4, 6, 5];
/// The columns without a cell are left out: progress, kind, labels, detail.
const MAY_BE_EMPTY: [usize; 4] = [2, 4, 6, 7];

/// The columns that are shown, with the width of each. The first page of a list decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ColumnLayout {
    widths: [Option<usize>; COLUMNS],
    /// Whether longer cells of later pages are cut.
    cut: bool,
}

/// The cells of one job.
#[derive(Clone, Debug)]
pub(super) struct ColumnCells {
    cells: [String; COLUMNS],
    state: String,
}

impl ColumnCells {
    /// The cells of a job. A person reads the time of a change as an age at `now`; a program gets the time.
    pub(super) fn of(edge: &WireJobEdge, now: Option<Timestamp>) -> Self {
        let job = &edge.job;
        let changed =
            [&job.finished_at, &job.updated_at, &job.state_since].into_iter().find_map(Option::as_ref);
        let changed = changed
            .map(|time| now.and_then(|now| style::since(time, now)).unwrap_or_else(|| line::seconds(time)));
        let labels: Vec<String> =
            edge.labels.iter().map(|label| format!("{}={}", label.name, label.value)).collect();
        let cells = [
            format!("{}/{}", job.source.name, job.external_id),
            job.state.clone(),
            line::progress(job).unwrap_or_default(),
            changed.unwrap_or_default(),
            job.kind.clone().unwrap_or_default(),
            edge.origin.clone(),
            labels.join(","),
            line::detail(job, now),
        ];
        Self { cells: cells.map(|cell| line::visible(&cell).into_owned()), state: job.state.clone() }
    }
}

impl ColumnLayout {
    /// The layout of these jobs in `width` cells, or in as many as they need.
    pub(super) fn of(jobs: &[ColumnCells], width: Option<usize>) -> Self {
        let natural = |column: usize| {
            let longest = jobs.iter().map(|job| style::width(&job.cells[column])).max().unwrap_or_default();
            let left_out = longest == 0 && MAY_BE_EMPTY.contains(&column);
            (!left_out).then(|| longest.max(HEADINGS[column].len()))
        };
        let natural: [Option<usize>; COLUMNS] = std::array::from_fn(natural);
        let Some(width) = width else { return Self { widths: natural, cut: false } };
        let mut widths = natural;
        for column in OPTIONAL {
            widths[column] = None;
        }
        let others: usize = widths.iter().skip(1).flatten().map(|cells| cells + GAP).sum();
        let job = natural[JOB].unwrap_or_default().min(width.saturating_sub(others).max(JOB_MIN));
        widths[JOB] = Some(job);
        let mut left = width.saturating_sub(job + others);
        for column in OPTIONAL {
            if let Some(wanted) = natural[column]
                && let Some(room) = left.checked_sub(GAP)
                && room >= wanted.min(OPTIONAL_MIN)
            {
                let given = wanted.min(OPTIONAL_MIN);
                widths[column] = Some(given);
                left = room - given;
            }
        }
        for column in OPTIONAL {
            if let (Some(given), Some(wanted)) = (widths[column], natural[column]) {
                let more = (wanted - given).min(left);
                widths[column] = Some(given + more);
                left -= more;
            }
        }
        Self { widths, cut: true }
    }

    /// The line of headings.
    pub(super) fn heading(&self) -> String {
        self.line(&HEADINGS.map(ToOwned::to_owned), None)
    }

    /// The line of a job.
    pub(super) fn row(&self, job: &ColumnCells, coloured: bool) -> String {
        self.line(&job.cells, coloured.then_some(job.state.as_str()))
    }

    fn line(&self, cells: &[String; COLUMNS], state: Option<&str>) -> String {
        let mut line = String::new();
        let mut gap = 0;
        for (column, width) in self.widths.iter().enumerate() {
            let Some(width) = *width else { continue };
            let cell = match cells[column].as_str() {
                cell if !self.cut => cell.into(),
                cell if column == JOB => style::cut_middle(cell, width),
                cell => style::cut(cell, width),
            };
            let cell = match state {
                Some(state) if column == STATE => {
                    let blanks = width.saturating_sub(style::width(&cell));
                    format!("{}{:blanks$}", style::paint(state, &cell, true), "")
                }
                _ => style::pad(&cell, width),
            };
            line.push_str(&" ".repeat(gap));
            line.push_str(&cell);
            gap = GAP;
        }
        line.truncate(line.trim_end().len());
        line
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::gateway::WireJobPage;

    fn jobs() -> Vec<ColumnCells> {
        let node = |id: &str, state: &str, failure: serde_json::Value| {
            json!({
                "__typename": "MindBridgeJob", "id": "opaque", "source": { "name": "audit" }, "externalId": id,
                "state": state, "isTerminal": false, "kind": "ANALYSIS_RUN", "failure": failure,
                "progress": { "completed": 3, "total": 7 }, "updatedAt": "2026-11-21T20:40:00.5Z",
                "freshness": { "staleReason": null },
            })
        };
        let edge = |node, labels| json!({ "node": node, "labels": labels, "origin": "TRACKED" });
        let failure = json!({ "code": "INGESTION_FAILED", "message": "column 7 is\u{1b}[2J not a date" });
        let label = json!([{ "name": "team", "value": "tax" }]);
        let page = json!({
            "edges": [
                edge(node("65f0c0ffee00000000000001", "RUNNING", json!(null)), json!([])),
                edge(node("65f0c0ffee00000000000002-and-a-long-name", "FAILED", failure), label),
            ],
            "pageInfo": { "hasNextPage": false, "endCursor": null },
        });
        let page = WireJobPage::read(&page).unwrap();
        let now = "2026-11-21T20:43:10Z".parse().ok();
        page.edges.iter().map(|edge| ColumnCells::of(edge, now)).collect()
    }

    fn lines(width: Option<usize>) -> Vec<String> {
        let jobs = jobs();
        let layout = ColumnLayout::of(&jobs, width);
        std::iter::once(layout.heading()).chain(jobs.iter().map(|job| layout.row(job, false))).collect()
    }

    #[test]
    fn columns_fit_sixty_cells() {
        assert_eq!(
            lines(Some(60)),
            [
                "JOB                               STATE    PROGRESS  CHANGED",
                "audit/65f0c0ffee00000000000001    RUNNING  3/7       3m",
                "audit/65f0c0ffee…and-a-long-name  FAILED   3/7       3m",
            ]
        );
    }

    #[test]
    fn every_width_is_respected() {
        for width in 44..200 {
            let longest = lines(Some(width)).iter().map(|line| style::width(line)).max().unwrap();
            assert!(longest <= width, "{longest} cells in {width}");
        }
    }

    #[test]
    fn a_wider_terminal_shows_more_columns() {
        let [narrow, wide] = [60, 120].map(|width| lines(Some(width)).remove(0));
        assert!(!narrow.contains("DETAIL") && !narrow.contains("KIND"), "{narrow}");
        assert!(["KIND", "DETAIL"].iter().all(|heading| wide.contains(heading)), "{wide}");
    }

    #[test]
    fn list_without_a_terminal_is_not_cut() {
        let lines = lines(None);
        assert!(lines[0].ends_with("DETAIL"), "{lines:?}");
        assert!(lines[2].contains("65f0c0ffee00000000000002-and-a-long-name"), "{lines:?}");
        assert!(lines[2].ends_with("INGESTION_FAILED: column 7 is\u{fffd}[2J not a date"), "{lines:?}");
    }

    #[test]
    fn column_without_a_cell_is_left_out() {
        let jobs: Vec<ColumnCells> = jobs().into_iter().take(1).collect();
        let heading = ColumnLayout::of(&jobs, None).heading();
        assert!(!heading.contains("LABELS") && !heading.contains("DETAIL"), "{heading}");
    }

    #[test]
    fn only_the_state_is_coloured() {
        let jobs = jobs();
        let row = ColumnLayout::of(&jobs, Some(60)).row(&jobs[1], true);
        assert!(row.contains("\u{1b}[31mFAILED\u{1b}[0m   3/7"), "{row:?}");
        assert_eq!(row.matches('\u{1b}').count(), 2, "{row:?}");
    }
}
