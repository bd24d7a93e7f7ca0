//! Plain text tables.

/// Prints rows under a header; the first column is flush left, numbers flush right.
pub fn print(header: &[&str], rows: &[Vec<String>]) {
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    line(header.iter().copied(), &widths);
    for row in rows {
        line(row.iter().map(String::as_str), &widths);
    }
}

fn line<'a>(cells: impl Iterator<Item = &'a str>, widths: &[usize]) {
    let mut text = String::new();
    for (i, (cell, width)) in cells.zip(widths).enumerate() {
        let pad = " ".repeat(width - cell.chars().count());
        if i == 0 {
            text += &format!("{cell}{pad}");
        } else {
            text += &format!("  {pad}{cell}");
        }
    }
    println!("{}", text.trim_end());
}
