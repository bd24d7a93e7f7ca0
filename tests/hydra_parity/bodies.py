"""Random YAML bodies of config files, in every style a user may write."""

import texts

KEYS = ["a", "b", "c", "x", "lr", "name2", "sub", "opts", "path", "k1"]
RARE_KEYS = ["y", "n", "yes", "1", "017", "1.5", "true", "'1'", '"q k"', "two words", "ünï", "a.b", "a/b", "a-b", "'yes'", "0x1F",
             "2024-01-01", "'${top}'", "''", "1e3", "'a: b'", "_self_", "a@b", "-x", "on", "null_", "1_000", "'#k'", "99999999999999999999",
             "k" * 30, "'" + "long key " * 14 + "'", "1:30", ".5", "=", "'null'", "'~'", "$x", "a b  c", "~x", "+a", "-1", ".inf"]
ODD_KEYS = ["null", "~", "[1]", "{a: 1}", "? x", "*a1", "a: b", "<<", "!!int '4'", "a", "''", ".nan", "? [a]", "&k k", "!!str 1"]


class Body:
    """The lines of one file's body; anchors live as long as the file."""

    def __init__(self, dice):
        self.dice = dice
        self.maps, self.scalars = [], []
        self.count = 0

    def mapping(self, indent, depth):
        dice, pad, lines = self.dice, " " * indent, []
        used = set()
        if self.maps and dice.chance(0.2):
            if dice.odd(5):
                lines.append(f"{pad}<<: {dice.pick(['5', 'x', '[1]', '*nope', 'null', '[]', '{}'])}")
            elif len(self.maps) > 1 and dice.chance(0.4):
                lines.append(f"{pad}<<: [{', '.join('*' + name for name in dice.some(self.maps, 1, 3))}]")
            else:
                lines.append(f"{pad}<<: *{dice.pick(self.maps)}")
        for _ in range(dice.int(1, 4)):
            key = dice.pick(KEYS) if dice.chance(0.85) else dice.pick(RARE_KEYS)
            if dice.odd():
                key = dice.pick(ODD_KEYS)
            elif key in used:
                continue
            used.add(key)
            if dice.chance(0.05):
                lines.append(pad + dice.pick(["# a comment", "", "   ", "#@package x", "\t# tab" if dice.odd(3) else "# c"]))
            lines += self.entry(pad + key + dice.weighted([(":", 30), (" :", 1), (":  ", 1)]), indent, depth)
        return lines or [pad + "z: 1"]

    def entry(self, head, indent, depth):
        """`head` is all up to and with the colon or the dash."""
        dice, pad = self.dice, " " * indent
        anchor = ""
        kind = dice.weighted([
            ("scalar", 12), ("map", 4 if depth < 3 else 0), ("list", 3 if depth < 3 else 0), ("flow", 3), ("block", 1.5),
            ("multi", 0.7), ("alias", 1.5 if self.scalars + self.maps else 0),
        ])
        if dice.chance(0.1) and kind != "alias":
            self.count += 1
            anchor = f" &a{self.count}"
        lines = self.written(kind, head, anchor, indent, depth, pad)
        if anchor:
            (self.maps if kind == "map" else self.scalars).append(anchor.strip(" &"))
        return lines

    def written(self, kind, head, anchor, indent, depth, pad):
        dice = self.dice
        if kind == "scalar":
            return [f"{head}{anchor} {self.scalar()}{dice.weighted([('', 20), (' # note', 2), ('  ', 1)])}"]
        if kind == "alias":
            return [f"{head} *{dice.pick(self.scalars + self.maps)}"]
        if kind == "map":
            deeper = indent + dice.pick([1, 2, 2, 4])
            return [head + anchor] + self.mapping(deeper, depth + 1)
        if kind == "list":
            deeper = indent + (dice.pick([0, 2, 2, 3]) if head.endswith(":") else 2)
            lines = [head + anchor]
            for _ in range(dice.int(1, 3)):
                lines += self.item(deeper, depth + 1)
            return lines
        if kind == "flow":
            return f"{head}{anchor} {self.over_lines(self.flow(0), pad)}".split("\n")
        if kind == "multi":
            text = dice.pick(["plain one\n%s two\n\n%s three", "'single one\n%s two''s\n\n\n%s three'", "'one\n%s'", '"one\n\n%s"', '"double \\\n%s one\n%s two \\x41"',
                              '"a  \n%s  b\n\n%s c"', "x: y\n%s z\n%sw" if dice.odd(3) else "p\n%s q"])
            more = pad + " " * dice.pick([1, 2, 4])
            if text[0] in "'\"" and dice.chance(0.3):
                more = dice.pick(["", " ", "\t", pad])
            return f"{head}{anchor} {text.replace('%s', more)}".split("\n")
        style = dice.pick("|>") + dice.weighted([("", 4), ("-", 2), ("+", 2), ("2", 1), ("2-", 1), ("+1", 0.5), ("9", 1 if dice.odd(3) else 0)])
        more = pad + "  "
        body = dice.some(["first line", "  indented", "", "second: x", "# no comment", "trailing  ", "${top} x", "\ttab", "- item", "ünï",
                          "a long line that goes on and on until it is surely longer than the eighty columns of the printer"], 1, 5)
        return [f"{head}{anchor} {style}"] + [more + line if line else line for line in ["start"] + body]

    def over_lines(self, text, pad):
        """Brackets whose lines may stand anywhere."""
        dice = self.dice
        if not dice.chance(0.15):
            return text
        starts = ["", " ", pad, pad + "  "]
        first, *others = text.split(", ")
        for part in others:
            first += (",\n" + dice.pick(starts) if dice.chance(0.6) else ", ") + part
        return first[:-1] + "\n" + dice.pick(starts) + first[-1] if dice.chance(0.3) else first

    def item(self, indent, depth):
        dice, pad = self.dice, " " * indent
        if dice.chance(0.2) and depth < 3:
            inner = self.mapping(indent + 2, depth + 1)
            first = next((i for i, line in enumerate(inner) if line.strip() and not line.strip().startswith("#")), None)
            if first is not None:
                inner[first] = pad + "- " + inner[first][indent + 2:]
                return inner[first:]
        return self.entry(pad + "-", indent, depth)

    def scalar(self):
        """Text that stands after `key: ` or `- `."""
        dice = self.dice
        if dice.odd():
            return dice.pick(texts.ODD_PLAIN)
        kind = dice.weighted([("plain", 10), ("spaced", 1), ("quoted", 4), ("interpolated", 5), ("long", 0.7), ("missing", 0.5),
                              ("tagged", 0.7), ("empty", 0.4), ("escapes", 1)])
        if kind == "plain":
            return dice.pick(texts.PLAIN)
        if kind == "spaced":
            return dice.pick(texts.SPACED)
        if kind == "tagged":
            return dice.pick(texts.TAGGED)
        if kind == "missing":
            return dice.pick(["???", "'???'", '"???"'])
        if kind == "empty":
            return ""
        if kind == "escapes":
            found = [dice.pick(texts.ESCAPES) for _ in range(dice.int(1, 3))]
            if dice.odd(4):
                found.append(dice.pick(["\\q", "\\x4", "\\u12", "\\'"]))
            return '"' + "x".join(found) + dice.pick(["", "y", " z"]) + '"'
        if kind == "quoted":
            text = dice.pick(texts.PLAIN + texts.SPACED)
        elif kind == "long":
            text = texts.long_text(dice)
        else:
            text = texts.interpolated(dice)
            if dice.chance(0.6) and not any(part in text for part in (": ", " #", "'", '"', ", ")) and text[0] in "$\\p":
                return text
        return quote(dice, text)

    def flow(self, depth):
        dice = self.dice
        if dice.odd(0.5):
            return dice.pick(["[1, 2", "{a: 1", "[a: b, c]", "{a, b}", "[?]", "[a?b]", "{? a: b}", "[1,,2]", "{a: ???}", "[x]]", "{a: 1, a: 2}",
                              "['a'b]", "[${top}, {]", "{1: 2, true: 3, 1.0: 4}", "{a:1}", "[a:1]", "{'a':1}", "[-]", "[#]", "[a #]", "{,}", "{[1]: 2}",
                              "[- 1]", "[:]", "[:a]", "{a: *nope}", "[%x]", "[@]", "[!x]", "{null: 1}", "{? : 1}"])
        space = dice.pick(["", " "])
        count = dice.int(0, 3)
        if dice.chance(0.5):
            items = [self.flow_value(depth) for _ in range(count)]
            return "[" + space + ", ".join(items) + dice.pick(["", "", ","] if items else [""]) + space + "]"
        keys = dice.some(KEYS + ["y", "1", "'q'", '"d"', "true", "2.5", "two words"], count, count)
        return "{" + space + ", ".join(f"{key}: {self.flow_value(depth)}" for key in keys) + space + "}"

    def flow_value(self, depth):
        dice = self.dice
        if depth < 2 and dice.chance(0.25):
            return self.flow(depth + 1)
        if (self.scalars or self.maps) and dice.chance(0.05):
            return "*" + dice.pick(self.scalars + self.maps)
        if dice.chance(0.15):
            return quote(dice, texts.interpolated(dice))
        plain = dice.pick(texts.PLAIN)
        if dice.chance(0.7) and not any(c in plain for c in ",[]{}?#&*!|>'\"%@`") and plain[0] not in ":-":
            return plain
        return quote(dice, dice.pick(texts.PLAIN + texts.SPACED + ["???", "", "a, b", "[x]"]))


def quote(dice, text):
    if dice.chance(0.5):
        return "'" + text.replace("'", "''") + "'"
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t") + '"'
