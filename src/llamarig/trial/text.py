"""What the engines are asked: always the same text, of many kinds.

It has 857 tokens of a vocabulary of 200,000 and 900 of one of 50,000. It was written for this, so no model has learnt
how it goes on.
"""

from __future__ import annotations

from typing import Final

SHORT: Final = "The lamp at the end of the pier had been out for three nights when the harbour master finally"

LONG: Final = """\
The mill at Ostrava Bend was built in 1874, burned in 1902, and was rebuilt by the same family with the same stones. Its
wheel is seven metres across and turns, on a wet day, eleven times a minute; on a dry one the miller reads. Whoever
walks there from the station passes four bridges, of which the third is closed to anything heavier than a bicycle, and
a field in which somebody has been growing the wrong kind of wheat for as long as anyone remembers.

Jana kept the books. She wrote them in a narrow hand, in columns that leaned a little to the left, and she added every
column twice: once from above and once from below. "If the two agree," she said, "either both are right or I have made
the same mistake in both directions, and that takes talent." In forty years it had happened twice. The first time it
was a seven that looked like a one. The second time nobody found out, and the difference, 3.20 crowns, stands in the
ledger of 1931 under the heading "weather".

What follows is the program that her grandson wrote to check her sums; it found nothing that she had not marked:

    def check(columns: list[list[float]]) -> list[int]:
        wrong = []
        for number, column in enumerate(columns):
            *items, total = column
            if abs(sum(items) - total) > 0.005:
                wrong.append(number)
        return wrong

    assert check([[1.25, 2.50, 3.75], [4.0, 4.0, 8.1]]) == [1]

The river itself has no opinion about the mill. It comes down from 812 metres, loses its colour below the paper works,
finds it again at the second weir, and carries, in March, about 46 cubic metres of water a second past the wheel, most
of which do nothing at all. In the valley they say: "Wer am Wasser wohnt, lernt warten." Und wer wartet, der hört, wie
die Mühle im Takt schlägt, drei kurze Schläge und ein langer, als wollte sie jemandem etwas sagen, der nicht zuhört.

| year | wheat (t) | rye (t) | days with ice |
| 1928 |     312.4 |    88.0 |            41 |
| 1929 |     298.7 |    91.5 |            77 |
| 1930 |     305.1 |    79.9 |            12 |
| 1931 |     287.6 |    85.2 |            23 |

In the winter of 1929 the wheel stood still for eleven weeks. The miller's daughter, who was nine, asked whether the
water under the ice was still moving, and her father lay down on the ice with his ear against it and listened for such
a long time that she became afraid. Then he got up, brushed the snow from his coat and said that it was, but slowly,
and that it had asked after her. She told that story until she was ninety-one, and every time the river asked something
else: after her school, after her children, after the third bridge, and in the end only whether she was coming back.

Ještě dnes tam lidé chodí v neděli odpoledne. The café opens at two; coffee is 2,40 and the cake costs whatever the
owner thinks you can afford. Behind the counter hangs a photograph of the ledger, open at 1931, and beneath it a line
in the narrow hand that leans to the left: Σ = 1 024,80 — twice, from above and from below. A visitor once asked what
the lesson of the place was. The owner thought about it, wiped the counter, looked out at the wheel, counted three
short beats and a long one, and then answered, as if it were the most obvious thing in the world, that the lesson was
"""
