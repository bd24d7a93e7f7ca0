"""Random texts of YAML scalars, interpolations and override values."""

import random

# Plain scalars that YAML 1.1, OmegaConf's additions or the printer treat specially.
PLAIN = """
yes No on OFF true False TRUE null ~ Null NULL nUll tRUE yES y n Y N
0 00 017 -017 +017 08 09.5 0o17 0_7 0x1F 0xff_ff -0x1f 0b101 0b1_0 +12 -0 1_000 1__0 1_ _1 1_2_3
1e-4 1E5 1e+3 1.5 1. -.5 .5 +.5 1.e3 1.5e3 1_0.5_0 .5e-3 .5e3 1e5.5 1e 1e- 0.0 -0.0 0e0 1_0e2 1.5_
1e15 1e16 1e17 1e22 1e400 1e-400 123456.789e3 1.7976931348623157e308 5e-324 0.1 0.30000000000000004
100000000000000000000.0 1234567890123456.7 0.0001 0.00001 123456789.123456789 2.5e-7 9007199254740993.0
12:30:45 1:30 -1:30 1:60 1:30.5 190:20:30.15 0:0 01:30 1:2:3:4 1:05. 12:3a
2024-01-01 2024-1-1 2001-12-14t21:59:43.10-05:00 2024-13-45 12-30
.inf -.INF +.inf .nan .NaN -.nan inf nan -inf NaN Infinity infinity
99999999999999999999 -9223372036854775809 9223372036854775807 -9223372036854775808
9223372036854775808 18446744073709551616 0xFFFFFFFFFFFFFFFFFFFF 123456789012345678901234567890
0777777777777777777777777 0b1111111111111111111111111111111111111111111111111111111111111111111
1_000_000_000_000_000_000_000 999999999999:59:59:59:59:59
word two_words a:b http://x.y/z?q=1#f a#b it's a\\b a"b ünï 日本語 😀 x]y x,y a-b a.b a/b C:\\dir 50% a&b a*b
-x :x ?x --x -1-2 1.2.3 1,5 +a $HOME a@b (p) a|b <a> ^ ; _ __ ... .. . +. 1.0.0 v1.0 1k 1e5k 0.5.
٣ １ 1٣ é́ ½ \u00a0x
""".split()
SPACED = ["two words", "a - b", "a ? b", "a  b", "x # no", "a:c d", "1 2", "yes no", "null x",
          "a 'q' b", 'say "x"', "-1 -", "2024-01-01 10:00:00", "2024-01-01 10:00", "a, b", "x\ty", "1 :2"]
# What breaks a plain scalar, or means something else in it.
ODD_PLAIN = ["=", "<<", "%x", "@x", "`x", "!x", "&x", "*nope", "|x", ">x", "a: b", "a :", "- x", "? x",
             "[x", "]x", "{x", "}x", "'x", '"x', "!!int x", "!!float x", "!!bool maybe", "!!binary aGk=",
             "!!set {a}", "!local 1", "!!timestamp 2024-01-01", "---", "... x", "-", "?", ":", "a:\tb", "\tx",
             "!!python/tuple [1]", "0b_", "0x_", "0x", "._", "1:30:", "!!null x", "!!omap [a: 1]"]
TAGGED = ["!!str 5", "!!str yes", "!!int '3'", "!!float 1", "!!float '1e3'", "!!bool 'yes'", "!!null ''", "! 5",
          "!!int 0x1F", "!!int 017", "!!float .inf", "!!str", "!!str ~", "!!int 1_0", "!!float 1_0.5", "!!bool Off",
          "!!str 1e5", "!!int +5", "!!float 1:30.5", "!!str 2024-01-01", "!<tag:yaml.org,2002:int> 7", "!!int 99999999999999999999"]
# Inside double quotes.
ESCAPES = ["\\n", "\\t", "\\x41", "\\xe9", "\\u00e9", "\\U0001F600", "\\0", "\\e", "\\a", "\\N", "\\_", "\\L", "\\P",
           "\\/", "\\\\", '\\"', "\\r", "\\b", "\\v", "\\f", " ", "\\ ", "\\u200b", "\\ufeff", "\\x7f", "\\x85", "\\ud83d"]
WORDS = ["lorem", "ipsum", "a", "of", "x:y", "it's", '"q"', "#1", "-", "1.5", "${top}", "ünï", "yes", "b,", "c]", "\\", "\\n", "%"]
RESOLVERS = [
    "${oc.env:PARITY_SET}", "${oc.env:PARITY_UNSET,dflt}", "${oc.env:PARITY_UNSET,3}", "${oc.env:PARITY_UNSET,null}",
    "${oc.env:PARITY_EMPTY}", "${oc.env:PARITY_UNSET,}", "${oc.env:PARITY_UNSET,${top}}", "${oc.env:PARITY_NUM}",
    "${oc.decode:${oc.env:PARITY_NUM}}", "${oc.decode:${oc.env:PARITY_LIST}}", "${oc.decode:'[1,2,{a: b}]'}",
    "${oc.decode:null}", "${oc.decode:'${top}'}", "${oc.decode:'1e-3'}", "${oc.decode:'\\'q\\''}", "${oc.decode:abc}",
    "${oc.decode:'[a,b]'}", "${oc.decode:'true'}", "${oc.decode:'0x1F'}", "${oc.decode:''}",
    "${oc.decode:'99999999999999999999'}", "${oc.decode:'x y'}", "${oc.decode:'${d.x} ${top}'}",
    "${oc.select:top}", "${oc.select:nope}", "${oc.select:nope,7}", "${oc.select:nope,[1,2]}", "${oc.select:d.x,q}",
    "${oc.select:miss,dd}", "${oc.select:d}", "${oc.select:nothing,5}", "${oc.select:l.1}", "${oc.select:l.9,none}",
    "${oc.select:'d.x'}", "${oc.select:.top,1}", "${oc.select:d.x.y,deep}", "${oc.select:top.y,deep}", "${oc.select:'',z}",
    "${oc.create:{a: 1, b: [2, 3]}}", "${oc.create:[1,${top}]}", "${oc.create:'{a: 1}'}", "${oc.create:null}",
    "${oc.create:'a: 017'}", "${oc.create:{x: ${d.x}}}", "${oc.create:'- 1'}", "${oc.create:${d}}", "${oc.create:'x: ${top}'}",
    "${oc.create:[]}", "${oc.create:''}", "${oc.create:abc}", "${oc.create:{yes: on, 1: 2}}",
    "${oc.dict.keys:d}", "${oc.dict.values:d}", "${oc.dict.keys:e}", "${oc.dict.values:e}", "${oc.dict.keys:refs}",
    "${oc.dict.values:refs}", "${oc.dict.values:deep.down}", "${oc.dict.keys:${name}}", "${oc.deprecated:top}",
    "${oc.deprecated:d.x}", "${oc.deprecated:top,'$OLD_KEY is now $NEW_KEY'}", "${oc.deprecated:d}", "${oc.dict.keys:deep}",
    "${now:%Y}", "${now:%Y-%m}", "${now:%%}", "${now:'%Y:x'}", "${now:x}", "${hydra:job.name}", "${hydra:runtime.version_base}",
    "${hydra:job.num}", "${hydra:sweep.subdir}", "${hydra:run}", "${hydra:job.config_name}", "${hydra:overrides.hydra}",
    "${hydra:runtime.choices}", "${hydra:verbose}", "${hydra:nope}", "${python_version:}", "${python_version:major}",
    "${python_version:minor}", "${python_version:x}", "${hydra:job.config.override_dirname.kv_sep}",
]
ODD_RESOLVERS = [
    "${oc.env:PARITY_UNSET}", "${oc.env:}", "${oc.env:A,B,C}", "${oc.decode:'[1'}", "${oc.decode:1}", "${oc.decode:}",
    "${oc.decode:'${nope}'}", "${oc.create:5}", "${oc.create:'[1'}", "${oc.dict.keys:l}", "${oc.dict.keys:nope}",
    "${oc.dict.values:top}", "${oc.dict.keys:}", "${oc.dict.keys:miss}", "${oc.deprecated:nope}", "${oc.deprecated:}",
    "${nores:1}", "${oc.nope:1}", "${now:}", "${now:%Y,x}", "${oc.select:}", "${oc.select:a,b,c}", "${hydra:}",
    "${hydra:job,x}", "${oc.env:[1]}", "${oc.env:1}", "${oc.decode:[1]}", "${oc.env:${l}}", "${oc.deprecated:top,5}",
    "${python_version:a,b}", "${oc.create:'${nope}'}", "${oc.create:1,2}", "${oc.select:5}", "${oc.env:true}",
]
PATHS = ["${top}", "${name}", "${d.x}", "${d[x]}", "${d.y}", "${l[0]}", "${l.1}", "${l[2].k}", "${l}", "${d}",
         "${ref}", "${refs.one}", "${flag}", "${nothing}", "${miss}", "${f}", "${e}", "${deep.down.x}", "${deep[down][x]}",
         "${[top]}", "${d.${key}}", "${${name}.x}", "${big}", "${deep.${down}.x}", "${ top }", "${deep.down}",
         "${quoted}", "${chain}", "${refs.list}", "${refs.rel}", "${empty}", "${str017}", "${l[${idx}]}"]
RELATIVE = ["${.a}", "${.x}", "${..a}", "${..top}", "${...top}", "${.lr}", "${..lr}", "${..d.x}", "${.l[0]}", "${.[a]}",
            "${..}", "${.}", "${....top}", "${..name}", "${.b.c}", "${.0}", "${..[0]}", "${..0}"]
ODD_PATHS = ["${nope}", "${d.1}", "${d.true}", "${d.nope}", "${top.x}", "${l.9}", "${l.x}", "${l[-1]}", "${l[${top}]}", "${a b}", "${", "${}",
             "${a.b", "${.}x", "${d..x}", "${d.}", "${[d}", "${a:", "${a,b}", "${'a'}", "${a.b]}", "${nothing.x}", "${miss.x}",
             "${top}${", "$${top}", "${t-op}", "${t/op}", "${d.x }", "${d .x}", "${top:}", "${&}", "${ünï}", "${d.[x]}",
             "${self}", "${loop.a}", "${a$b}", "${a%b}", "${1}", "${d.x.y}", "${name.x}", "${l[0].x}", "${.........top}"]


class Dice:
    """A random choice maker. `odd` comes true only in cases meant to go wrong now and then."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.wild = self.rng.random() < 0.42
        self.rate = self.rng.choice([0.001, 0.002, 0.005, 0.01, 0.02])

    def pick(self, items):
        return items[self.rng.randrange(len(items))]

    def chance(self, probability):
        return self.rng.random() < probability

    def odd(self, times=1.0):
        return self.wild and self.rng.random() < self.rate * times

    def int(self, low, high):
        return self.rng.randint(low, high)

    def some(self, items, low, high):
        return self.rng.sample(items, min(len(items), self.int(low, high)))

    def weighted(self, table):
        return self.rng.choices([item for item, _ in table], [weight for _, weight in table])[0]


def interpolation(dice, nest=0):
    """One `${..}`."""
    if dice.odd(2):
        return dice.pick(ODD_PATHS + ODD_RESOLVERS)
    if dice.wild and dice.chance(0.1):
        return dice.pick(RELATIVE)
    if nest < 2 and dice.chance(0.08):
        inner = interpolation(dice, nest + 1)
        return dice.pick(["${oc.select:nope,%s}", "${oc.env:PARITY_UNSET,%s}", "${oc.create:[%s]}",
                          "${oc.create:{k: %s}}", "${oc.decode:%s}", "${oc.select:'%s',z}", "${oc.env:'%s',y}"]) % inner
    return dice.pick(PATHS if dice.chance(0.6) else RESOLVERS)


def interpolated(dice):
    """A text with interpolations in it."""
    one = interpolation(dice)
    if dice.chance(0.55):
        return one
    return dice.weighted([
        ("pre_" + one, 3), (one + "_post", 3), (one + interpolation(dice), 3), (one + " " + interpolation(dice), 2),
        ("\\" + one, 2), ("\\\\" + one, 2), ("\\\\\\" + one, 1), ("a\\b" + one, 1), (one + "\\", 1), ("$" + one, 1),
        ("x: " + one, 1), (one + ", '" + one + "'", 1), ("\\" + one + one, 1), (one + "}", 1), ("{" + one, 1),
        (one + "\\\\", 1), ("é" + one, 1), ("\\${" + one, 1),
    ])


def long_text(dice):
    return " ".join(dice.pick(WORDS) * dice.int(1, 3) for _ in range(dice.int(8, 40)))


# Bare override values.
BARE = r"""
1 -1 +1 0 00 010 0x10 1_000 1__0 1. .5 -.5 1e-3 1E5 1e 1e+ inf -inf NaN nan +inf Infinity true TRUE False null NULL Null
yes on off y n ~x x x-y x_y a/b a.b a\b $HOME a@b a|b 50% a*? -x --x +x a+b http://x:80/p?q a:b :a a: 12:30 1:30:00 -
999999999999999999999 -9223372036854775809 1_000_000_000_000_000_000_000 1e400 .5e3 1.5.2 1..2 ... .. . / \ ? * % | $ @
\, \= \( \) \[ \] \{ \} \: \\ a\,b a\=b a\ b \ x a\\b c:\dir truex nullx 1x x1 1-2 1_ _1 inf_ trueish-false 1e5e5
a@b.c file://x ../up ./here /abs/path ??? ${top} ${d.x} a${top}b ${top}${name} ${oc.env:PARITY_SET} ${l[0]} ${d[x]} 0.1 1e16
1e-05 1.0 100000000000000000000.0 0_0 -0 -0.0 +0 0e0 5e-324 1.e5 2024-01-01 v1.2.3 a-b_c.d/e
""".split() + ["x y", "a  b", "x\ty", "1 2", "true false", "null null", " x", "x ", "  ", "a : b", "1 x", "x 1", "${top} x",
               "a ${d.x} b", "${ top }", "${oc.select:nope,7}", "\\ ", "x\\ ", "a -b"]
ODD_BARE = ["a=b", "a,b", "1,2", "a#b", "x!", "a;b", "a<b", "a^b", "a`b", "é", "a\"b", "a'b", "[", "]", "{", "}", "(", ")", "[1",
            "{a:1", "a(", "f(1)", "nope()", ",", "a,", ",a", "=", "a\nb", "&x", "x{y}", "[1]2", "'a'b", "a'b'", "{a}", "{a:}",
            "{:1}", "[,]", "[1,]", "[,1]", "${", "${}", "${a", "a}b", "choice(", "1 [2]", "''''", "{'a':1}", "{\"a\":1}",
            "${oc.env:A,${top}}", "int(x)", "int()", "int(1", "\\q${", "${a b}", "😀", "\u00a0x", "[[1]", "{a:{b:1}", "{a:1,}"]
INNER = ["a", "b c", "1", ",", "=", "\\'", '\\"', "\\\\", "\\", "${top}", "${d.x}", "[", "{", "}", "é", "#", ":", " ", "\\,", "x\\n",
         "'", '"', "true", "\t", "\\${top}", "!", "日"]
CALLS = ["int(3.9)", "int('5')", "int([1.5,2])", "int({a:1.5})", "int(true)", "float(1)", "float('1e3')", "float([1,2])", "str(1)",
         "str([1,true,a])", "str(1.0)", "str('x')", "str({a:1})", "str(inf)", "bool(1)", "bool('true')", "bool(0.0)",
         "bool([1,0])", "sort([3,1,2])", "sort([c,a,b])", "sort([3,1,2],reverse=true)", "sort([])", "shuffle([1])", "shuffle([x,x])",
         "sort([1.5,1])", "int(value=3)", "sort(list=[2,1],reverse=false)", "int(' 7 ')", "float(nan)", "str(a b)",
         "int('1_0')", "float('inf')", "bool(TRUE)", "int(1e3)", "str('a,b')", "str(1e-5)", "sort([true,false])", "int(-0.5)",
         "float('1_0.5')", "str(0x10)", "int([1,[2.5]])", "str(${top})", "int( 3 )", "sort(['b',\"a\"])", "float(true)", "bool('False')",
         "int(99999999999999999999)", "int('99999999999999999999')", "int(1e30)", "float(99999999999999999999)", "str(99999999999999999999)"]
ODD_CALLS = ["choice(a,b)", "range(1,5)", "range(5)", "interval(0,1)", "glob(*)", "a,b", "shuffle(a,b)", "sort(b,a)", "tag(t,choice(a,b))",
             "int(x)", "bool(yes)", "int(null)", "str(null)", "sort([1,a])", "nofunc(1)", "int(1,2)", "choice()", "int(inf)", "sort()",
             "choice([a,b],c)", "range(0,1,0)", "glob([a*,b*],exclude=c)", "interval(1)", "tag(a)", "int(value=1,x=2)", "float(x)",
             "choice(1,2,3)", "int(choice(1.5,2.5))", "float(range(1,3))", "sort(choice(b,a))", "shuffle(range(1,5))", "sort([1],key=2)",
             "int('0x10')", "float('x')", "bool('')", "tag(1)", "choice(choice(a,b),c)", "shuffle(1)", "sort(x=1)", "range(a,b)", "str()"]


def quoted(dice):
    quote = dice.pick("'\"")
    text = "".join(dice.pick(INNER) for _ in range(dice.int(0, 4)))
    if not dice.odd(3):
        out, slashes = "", 0
        for char in text:
            if char == quote and slashes % 2 == 0:
                out += "\\"
            slashes = slashes + 1 if char == "\\" else 0
            out += char
        text = out + ("\\" if slashes % 2 else "")
    return quote + text + quote


def override_value(dice, depth=0):
    """The text after the `=` of an override."""
    if dice.odd(3):
        return dice.pick(ODD_BARE + ODD_CALLS)
    kind = dice.weighted([("bare", 10), ("quoted", 4), ("list", 3 if depth < 3 else 0),
                          ("dict", 3 if depth < 3 else 0), ("call", 2), ("interpolated", 2), ("empty", 0 if depth else 1)])
    if kind == "bare":
        return dice.pick(BARE)
    if kind == "quoted":
        return quoted(dice)
    if kind == "call":
        return dice.pick(CALLS)
    if kind == "interpolated":
        text = interpolated(dice)
        return text if dice.chance(0.3) and "'" not in text else '"%s"' % text.replace('"', '\\"')
    if kind == "empty":
        return ""
    space = dice.pick(["", "", " ", "  "])
    if kind == "list":
        items = [override_value(dice, depth + 1) for _ in range(dice.int(0, 3))]
        return "[" + space + ("," + space).join(items) + space + "]"
    keys = ["a", "b", "x", "y", "lr", "1", "1.5", "true", "new", "a b", "a/b", "yes", "k\\:k", "-x", "null" if dice.odd(5) else "z"]
    pairs = [dice.pick(keys) + space + ":" + space + override_value(dice, depth + 1) for _ in range(dice.int(0, 3))]
    return "{" + space + ("," + space).join(pairs) + space + "}"
