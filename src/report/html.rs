//! A page in one file: no scripts, nothing loaded from elsewhere.

use std::fmt::Write;

use super::svg::escaped;

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:1360px;margin:2em auto;padding:0 1em;\
color:#222;background:#fff}h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}\
table{border-collapse:collapse;margin:.5em 0}th,td{border:1px solid #ccc;padding:.25em .6em;\
text-align:left;vertical-align:top}th{background:#f3f3f3}td.n{text-align:right;\
font-variant-numeric:tabular-nums}tr.best{background:#e8f4e8}.charts{display:flex;\
flex-wrap:wrap;gap:1em}.charts svg{max-width:100%;height:auto;border:1px solid #ddd}\
.wide{overflow-x:auto}code{background:#f3f3f3;padding:.1em .3em}";

/// A page that is being written.
pub struct Page {
    out: String,
}

impl Page {
    pub fn new(title: &str) -> Page {
        let title = escaped(title);
        Page {
            out: format!(
                "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
                 <meta name=\"viewport\" content=\"width=device-width\"/>\n<title>{title}</title>\n\
                 <style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
            ),
        }
    }

    fn add(&mut self, arguments: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.out.write_fmt(arguments);
    }

    pub fn heading(&mut self, text: &str) {
        self.add(format_args!("<h2>{}</h2>\n", escaped(text)));
    }

    pub fn paragraph(&mut self, text: &str) {
        self.add(format_args!("<p>{}</p>\n", escaped(text)));
    }

    pub fn code(&mut self, text: &str) {
        self.add(format_args!("<p><code>{}</code></p>\n", escaped(text)));
    }

    /// A table; numbers stand on the right. `best`: rows that are marked.
    pub fn table(&mut self, header: &[&str], rows: &[Vec<String>], best: &[usize]) {
        self.out.push_str("<div class=\"wide\"><table>\n<tr>");
        for name in header {
            self.add(format_args!("<th>{}</th>", escaped(name)));
        }
        self.out.push_str("</tr>\n");
        for (i, row) in rows.iter().enumerate() {
            self.out.push_str(match best.contains(&i) {
                true => "<tr class=\"best\">",
                false => "<tr>",
            });
            for cell in row {
                let number = cell.trim_end_matches(" %").parse::<f64>().is_ok();
                let class = if number { " class=\"n\"" } else { "" };
                self.add(format_args!("<td{class}>{}</td>", escaped(cell)));
            }
            self.out.push_str("</tr>\n");
        }
        self.out.push_str("</table></div>\n");
    }

    /// Charts side by side. They come as SVG.
    pub fn charts(&mut self, charts: &[String]) {
        self.out.push_str("<div class=\"charts\">\n");
        for chart in charts {
            self.out.push_str(chart);
        }
        self.out.push_str("</div>\n");
    }

    pub fn end(mut self) -> String {
        self.out.push_str("</body>\n</html>\n");
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_run_holds_stays_text() {
        let mut page = Page::new("<script>");
        page.table(&["a", "b"], &[vec!["<b>".into(), "1.5 %".into()]], &[0]);
        page.paragraph("x & y");
        let text = page.end();
        assert!(
            !text.contains("<script>") && !text.contains("<b>"),
            "{text}"
        );
        assert!(text.contains("<tr class=\"best\"><td>&lt;b&gt;</td><td class=\"n\">1.5 %</td>"));
        assert!(text.contains("x &amp; y"));
    }
}
