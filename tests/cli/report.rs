//! `run report` from outside, over runs that the tests write themselves.

use crate::common::xml;

use crate::common::place::{EARLY, FIRST, LATER, Place, SECOND};
use serde_json::json;

const SWEEP: &str = "outputs/multirun/2026-03-02/11-00-00";

/// The page at `name`, which needs nothing from elsewhere.
fn page(place: &Place, name: &str) -> String {
    let text = std::fs::read_to_string(place.path(name)).expect("a report");
    xml::well_formed(&text);
    for part in ["<script", "<link", "src=", "href=", "url(", "@import"] {
        assert!(!text.contains(part), "{part} in {text}");
    }
    // The one address names a vocabulary and is not loaded.
    let addresses = text.matches("://").count();
    assert_eq!(
        addresses,
        text.matches("xmlns=\"http://www.w3.org/2000/svg\"").count()
    );
    text
}

/// The points of each curve of the chart with this title.
fn curves(text: &str, title: &str) -> Vec<usize> {
    let mut charts = text.split("<svg ").skip(1);
    let chart = charts
        .find(|chart| chart.contains(&format!("<title>{title}</title>")))
        .unwrap_or_else(|| panic!("no chart {title}"));
    let chart = chart.split("</svg>").next().unwrap_or_default();
    let lines = chart.split("<polyline points=\"").skip(1);
    lines
        .map(|line| {
            line.split('"')
                .next()
                .unwrap_or_default()
                .split(' ')
                .count()
        })
        .collect()
}

#[test]
fn a_run_becomes_one_page_with_its_curves() {
    let place = Place::new();
    place.finished(FIRST, EARLY, &["lora.r=8", "task.name='<b>'"]);
    let said = place.ok(&["report", "10-00-00"]);
    assert_eq!(said, format!("report     {FIRST}/report.html\n"));
    let text = page(&place, &format!("{FIRST}/report.html"));
    assert_eq!(curves(&text, "Loss"), [7], "one validation is a dot");
    for title in ["Learning rate", "Gradient norm", "Speed", "Peak memory"] {
        assert_eq!(curves(&text, title), [7], "{title}");
    }
    assert!(text.contains("<td>mcq accuracy</td>") || text.contains("<td>MCQ accuracy</td>"));
    for part in [
        "<td>lora.r</td><td class=\"n\">16</td><td class=\"n\">8</td>",
        "<td>task.name</td><td>mcq</td><td>&lt;b&gt;</td>",
        "<td class=\"n\">25.0 %</td><td class=\"n\">90.0 %</td>",
        "4096 (1.5 %)",
        "61.0 s",
        "finished",
        ">validation<",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(
        !text.contains("<td>lora.alpha</td>"),
        "a default is no difference"
    );
}

#[test]
fn output_names_another_file() {
    let place = Place::new();
    place.finished(FIRST, EARLY, &[]);
    place.ok(&["report", "output=pages/one.html", FIRST]);
    page(&place, "pages/one.html");
    assert!(!place.path(&format!("{FIRST}/report.html")).exists());
    let text = place.refused(&["report", FIRST, "output=pages"]);
    assert!(text.contains("output=pages/report.html"), "{text}");
    for args in [
        &["report"][..],
        &["report", "output=x.html"],
        &["report", FIRST, SECOND],
        &["report", FIRST, "output="],
    ] {
        assert_eq!(place.run(args).code, Some(2), "{args:?}");
    }
}

#[test]
fn a_run_without_figures_has_a_page_too() {
    let place = Place::new();
    place.snapshot(FIRST, &["seed=1"]);
    place.ok(&["report", FIRST]);
    let text = page(&place, &format!("{FIRST}/report.html"));
    assert!(
        text.contains("interrupted") && !text.contains("<svg"),
        "{text}"
    );
    place.finished(SECOND, LATER, &[]);
    let failed = json!({"status": "failed", "error": "it <broke>", "metrics": {}});
    place.summary(SECOND, LATER, failed);
    place.ok(&["report", SECOND]);
    let text = page(&place, &format!("{SECOND}/report.html"));
    assert!(text.contains("it &lt;broke&gt;"), "{text}");
}

#[test]
fn a_sweep_has_its_table_and_a_chart_a_key() {
    let place = Place::new();
    let mut rows = "cell,directory,lora.r,task,overrides,status,error,best,metrics.base.accuracy,\
                    metrics.tuned.accuracy,train_loss,val_loss\n"
        .to_string();
    let mut cell = 0;
    for task in ["mcq", "saq"] {
        for (r, score) in [("4", 0.5), ("16", 0.75), ("64", 0.875)] {
            // The last one failed.
            let (status, score) = match cell {
                5 => ("failed", String::new()),
                _ => ("finished", score.to_string()),
            };
            let best = cell == 2;
            rows += &format!(
                "{cell},{SWEEP}/{cell},{r},{task},lora.r={r} task={task},{status},,{best},0.25,\
                 {score},0.5,0.625\n"
            );
            if status == "finished" {
                place.finished(&format!("{SWEEP}/{cell}"), EARLY, &[]);
            }
            cell += 1;
        }
    }
    place.write(&format!("{SWEEP}/sweep.csv"), &rows);
    let said = place.ok(&["report", "2026-03-02/11-00-00"]);
    assert_eq!(said, format!("report     {SWEEP}/report.html\n"));
    let text = page(&place, &format!("{SWEEP}/report.html"));
    assert!(text.contains("6 cells, 5 finished"), "{text}");
    assert_eq!(text.matches("<tr class=\"best\">").count(), 1);
    // A number is an axis, with a curve for each value of the other key.
    assert_eq!(curves(&text, "metrics.tuned.accuracy by lora.r"), [3, 2]);
    assert_eq!(curves(&text, "metrics.tuned.accuracy by task"), [0usize; 0]);
    assert!(text.contains("lora.r=16"), "{text}");
    assert_eq!(curves(&text, "Training loss"), [7; 5]);
    // A cell is a run.
    place.ok(&["report", "11-00-00/3"]);
    page(&place, &format!("{SWEEP}/3/report.html"));

    place.edit(&format!("{SWEEP}/sweep.csv"), "0,", "0,too,many,");
    let text = place.refused(&["report", SWEEP]);
    assert!(
        text.contains("sweep.csv:2: cannot be read as a table"),
        "{text}"
    );
    let text = place.refused(&["report", "12-00-00"]);
    assert!(text.contains("no such run"), "{text}");
}
