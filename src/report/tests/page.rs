//! `index.html`.

use std::collections::BTreeSet;

use super::*;

fn page(data: &ReportData) -> String {
    html::render(data).unwrap()
}

/// What stands between two marks, everywhere in a text.
fn between<'a>(text: &'a str, open: &str, close: &str) -> Vec<&'a str> {
    text.split(open).skip(1).map(|rest| rest.split_once(close).expect("closed").0).collect()
}

#[test]
fn every_estimate_shown_stands_in_the_data() {
    let data = fixture::report();
    let page = page(&data);
    let mut known: BTreeSet<String> = data.estimates.iter().map(format::estimate).collect();
    // Pictures of checks show the numbers of `checks.csv` after the sign of their outcome.
    for row in data.checks.iter().filter(|row| row.judge.is_none() && row.value.is_some()) {
        let [value, lower, upper] = [row.value, row.lower, row.upper].map(Option::unwrap);
        known.insert(format!("{} {}", format::check(row.outcome).0, format::with_interval(value, lower, upper, 3)));
    }
    let numbers = between(&page, "<span class=\"num\"", "</span>");
    let cells = numbers.iter().map(|n| n.split_once("<b>").expect("a value").1.replace("</b> <span class=\"ci\">", " "));
    let rows = between(&page, "text-anchor=\"end\">", "</text>").into_iter().filter(|t| t.contains('[')).map(str::to_owned);
    let shown: Vec<String> = cells.chain(rows).collect();
    assert_eq!(shown.iter().filter(|text| text.starts_with(['✓', '!', '✗'])).count(), 2, "a picture each of two measures");
    assert!(shown.len() > 80, "{}", shown.len());
    for number in shown {
        assert!(known.contains(&number), "{number}");
    }
}

#[test]
fn the_verdict_comes_first_in_words() {
    let data = fixture::report();
    let page = page(&data);
    let first = page.find("<h2>").unwrap();
    assert!(page[first..].starts_with("<h2>Verdict</h2>"));
    for c in &data.conclusions {
        assert!(page.contains(format::answer(c.answer).1));
        assert!(page.contains(data.label(&c.variant)));
    }
}

#[test]
fn the_page_needs_nothing_else() {
    for data in [fixture::report(), tables::hostile()] {
        let page = page(&data);
        for forbidden in ["<script", "<img", "<iframe", "src=", "@import", "url(", "http://", "https://", " onmouseover='"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
    }
}

#[test]
fn hostile_text_is_escaped_and_visible() {
    let page = page(&tables::hostile());
    let steering = page.chars().find(|&c| c != '\n' && c != '\t' && (c.is_control() || c == '\u{202e}'));
    assert_eq!(steering, None);
    assert!(page.contains("&lt;script&gt;alert(1)"));
    assert!(page.contains("&lt;U+202E&gt;"));
    // A quote that isn't escaped would end an attribute: each tag's quotes come in pairs.
    for tag in between(&page, "<", ">") {
        assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
    }
}

#[test]
fn tags_close_in_order_and_ids_are_unique() {
    for data in [fixture::report(), tables::hostile(), missing::nearly_everything()] {
        let page = page(&data);
        let body = page.split_once("</style>").unwrap().1;
        let mut open: Vec<&str> = vec!["html", "head"];
        for tag in between(body, "<", ">") {
            let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
            match tag {
                _ if ["meta", "link", "path", "rect", "circle"].contains(&name) => {}
                _ if tag.starts_with('/') => assert_eq!(open.pop(), Some(name)),
                _ => open.push(name),
            }
        }
        assert_eq!(open, Vec::<&str>::new());
        let ids = between(&page, " id=\"", "\"");
        assert_eq!(ids.len(), ids.iter().collect::<BTreeSet<_>>().len());
        for target in between(&page, "href=\"#", "\"") {
            assert!(ids.contains(&target), "{target}");
        }
    }
}

#[test]
fn the_audit_of_a_files_rows_is_shown_where_there_is_one() {
    assert!(!page(&fixture::report()).contains("<section id=\"data\""));
    let message = "2 of 40 pairs repeat <b>another</b>".to_owned();
    let item = crate::data::AuditItem { id: "duplicate-pairs".to_owned(), count: 2, total: 40, must_be_zero: false, message };
    let page = page(&crate::report::ReportData { audit: vec![item], ..fixture::report() });
    let section = page.split_once("<section id=\"data\">").unwrap().1.split_once("</section>").unwrap().0;
    assert!(section.contains("duplicate-pairs") && section.contains(">5 %<"), "{section}");
    assert!(section.contains("repeat &lt;b&gt;another"), "{section}");
    assert!(page.contains("href=\"#data\""));
}

#[test]
fn sections_without_data_are_left_out() {
    let bare = page(&missing::nearly_everything());
    for section in ["win-rates", "measures", "training", "lengths", "samples", "gate"] {
        assert!(!bare.contains(&format!("<section id=\"{section}\"")), "{section}");
    }
    assert!(bare.contains("No findings."));
    let elsewhere = page(&missing::trained_elsewhere());
    assert!(!elsewhere.contains("<section id=\"training\""));
    assert!(elsewhere.contains("<section id=\"samples\"") && elsewhere.contains("<section id=\"win-rates\""));
}

#[test]
fn a_long_training_log_keeps_the_page_small() {
    let mut data = fixture::report();
    let log = data.train_log.clone();
    data.train_log.clear();
    for lap in 0..100 {
        data.train_log.extend(log.iter().cloned().map(|mut r| {
            r.step += lap * 60;
            r
        }));
    }
    let page = page(&data);
    assert!(page.len() < 400_000, "{}", page.len());
    assert!(page.contains("Means over 30 steps."));
}

#[test]
fn where_preferences_spread_is_a_table_of_judges_and_sources() {
    let mut data = fixture::report();
    assert!(!page(&data).contains("Where preferences spread"));
    let like = data.estimates.iter().find(|e| e.metric == "win_rate").unwrap().clone();
    for (judge, source, value) in
        [(Some("pairwise"), "prompt", 0.0412), (Some("pairwise"), "seed", 0.0007), (None, "judge", 0.0033)]
    {
        let (judge, slice) = (judge.map(str::to_owned), Some(source.to_owned()));
        let interval = (value / 2.0, 2.0 * value);
        data.estimates.push(crate::estimates::Estimate {
            metric: "win_rate_variance".to_owned(),
            judge,
            slice,
            value,
            lower: interval.0,
            upper: interval.1,
            ..like.clone()
        });
    }
    let page = page(&data);
    let table = between(&page, "aria-label=\"Where preferences spread\">", "</table>")[0];
    let rows = between(table, "<tr><th scope=\"row\"", "</tr>");
    assert_eq!(rows.len(), 2);
    assert!(
        rows[0].contains("pairwise") && rows[0].contains("<b>0.0412</b>") && rows[0].contains("<b>0.0007</b>"),
        "{}",
        rows[0]
    );
    assert!(rows[1].contains("all of them") && rows[1].contains("<b>0.0033</b>"), "{}", rows[1]);
    assert_eq!((rows[0].matches("—").count(), rows[1].matches("—").count()), (1, 2));
}
