# SPDX-License-Identifier: Apache-2.0
"""Printed words and their fonts."""

import os
import string
from functools import lru_cache
from pathlib import Path
from random import Random

from PIL import ImageFont

# Characters of printed words. The label of a character is its index here plus 1.
ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits
FONTS_VARIABLE = "DEMO_VLM_FONTS"
_FOLDERS = ("/usr/share/fonts/truetype/dejavu", "/usr/share/fonts/truetype/liberation")
# Only font families that have all letters and digits.
_PATTERNS = ("DejaVuSans*.ttf", "DejaVuSerif*.ttf", "Liberation*.ttf")

_COMMON = """
cat dog sun map bus car box key pen cup hat fox owl bee ant cow pig hen egg tea ice sea sky air fire wind rain snow
stop open exit sale free help home work play game star moon tree leaf rose lily bird fish frog duck bear lion wolf
deer goat milk cake rice soup salt corn meat food book page word text note song film news mail shop bank park road
city town farm lake hill rock sand gold iron wood glass paper stone water earth light night green happy smile music
piano radio phone table chair house door wall floor roof room clock watch train plane truck boat ship bike wheel
apple lemon peach grape melon mango berry onion bread toast pizza pasta salad candy sugar honey coffee juice cream
summer winter spring autumn sunday monday friday march april june july north south east west left right front back
king queen hero magic dream heart peace love hope luck wish team goal race jump run walk swim ride fly sing dance
hello world alpha beta gamma delta omega zero one two three four five six seven eight nine ten data code test demo
pixel robot laser solar panel cloud server model token triton chat image vision tiger zebra horse sheep mouse rabbit
monkey turtle planet rocket orbit comet castle bridge tower garden market school office doctor artist writer dollar
silver bronze yellow purple orange danger closed caution taxi hotel cafe menu push pull wait start go up down yes no
on off in out hot cold big small new old fast slow high low first last best good nice cool wow ok vip bar gym spa zoo
the and for that you are can from was not this have your they other has man about but were also them who these its how
self time under people like what would need any had many add used only child get learn where health should her well
every even form sign just make years set see then those way each during while count long after loss fact life very
being own she find both does grow main much most before some level study great end might class often around made said
show same too power pot visit design day human treat now state called point number build part place body did must plan
cost common want met cell pass let real social method known change still better hand report public sit list feel cap
become energy few mean keep others create top leg proper stand move among mark thing pain area family due law group
here early access aim turn print say mill land case since local head post along value order come cause toggle view
major course else invest press hard line tool future role until second men young always step today given strong age
next far flow short past space amount author needs words give kind mind story log types term enough never away ever
going dig full super sure side brain plants event sound near really became nature size simple single source either
once seen deep job pay done file cut helps online live fall idea sent quick target break soft color red mass parts
lives port yet rate came clear below whole taking tell money avoid micro allow bal check tools clean begin react week
offer true black draw bring feed diet face total unit almost half fat easy gas extra enjoy heat ideas max led issue
longer wild mental media books ones user broad takes safety stay normal daily write inside basic answer safe input
late talk exact tax cross damage camp beyond force kids series warm bill lack quite cover carbon pack output forest
base visual gain lines active bit prior feet speak hands friend soon eye belief offers got named waste rules places
foot agree trying rates held mix asked trees seems card legal rich vacuum zigzag jazz quiz fizz buzz waltz quartz
oxygen xenon yoga yacht zinc zone fuzzy jumbo joker kayak kiwi quest quote queue vivid voice volume wax wizard yeast
zoom
""".split()  # noqa: SIM905


def text(rng: Random) -> str:
    """Draw a text of 2 to 6 characters: a common word, letters, digits, or a code of both."""
    kind = rng.random()
    if kind < 0.45:
        return _cased(rng, rng.choice([word for word in _COMMON if 2 <= len(word) <= 6]))
    length = rng.choice((2, 3, 3, 3, 4, 4, 4, 5, 5, 6))
    if kind < 0.62:
        return _cased(rng, _pick(rng, string.ascii_lowercase.replace("l", ""), length))
    if kind < 0.86:
        return _pick(rng, string.digits, length)
    # Codes have no O and I, which look like 0 and 1.
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"
    code = _pick(rng, letters, length - 1 - rng.randrange(length - 1))
    digits = _pick(rng, "23456789", length - len(code))
    return code + digits if rng.random() < 0.7 else digits + code


def _pick(rng: Random, alphabet: str, length: int) -> str:
    return "".join(rng.choices(alphabet, k=length))


def _cased(rng: Random, word: str) -> str:
    kind = rng.random()
    if kind < 0.65:
        return word.upper()
    return word if kind < 0.8 else word.capitalize()


@lru_cache
def font_files() -> tuple[str, ...]:
    """List the TrueType files on this machine in a fixed order; "" is Pillow's own font."""
    folders = [Path(folder) for folder in (*_FOLDERS, os.environ.get(FONTS_VARIABLE, "")) if folder]
    folders += _matplotlib_folder()
    found = {path.name: str(path) for folder in folders for pattern in _PATTERNS for path in folder.glob(pattern)}
    # matplotlib's "Display" files have only a few symbols.
    return ("", *(found[name] for name in sorted(found) if "Display" not in name))


def _matplotlib_folder() -> list[Path]:
    try:
        from matplotlib import get_data_path
    except ImportError:
        return []
    return [Path(get_data_path()) / "fonts" / "ttf"]


@lru_cache(maxsize=512)
def font(path: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Load the font in `path` ("" for Pillow's own) at `size` pixels."""
    return ImageFont.truetype(path, size) if path else ImageFont.load_default(size)
