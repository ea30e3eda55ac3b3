"""Lexicons of the review domains that pretraining never sees. Format: see ``_domains.py``."""

HELD = """
# hotels | past
item: hotel; guesthouse; inn; lodge; bed and breakfast
open: we stayed for [two|three|five] nights; I was there on business; we needed a bed near the airport;
  our flight was cancelled, so we checked in at midnight; we took a twin room for the
  [weekend|wedding|conference]
story: the lobby has a stuffed bear in it; our room was on the fourth floor; breakfast is served from
  seven; the building used to be a bank; the key was a plastic card; there was a wedding party in the
  house; we paid in advance
@ s room; bedroom; suite
+ spotless; sun-drenched; immaculate; soundproof
- musty; windowless; mildewed; unswept
> had been scrubbed until it shone; looked out over the whole bay; came with a balcony and robes
< had bedbugs in it; reeked of stale cigarettes; faced a humming air shaft; had hair in every corner
@ p sheets; pillows; mattresses
+ downy; starched; cloud-soft; lavender-scented
- lumpy; threadbare; stained; saggy
> put us to sleep in seconds; had been ironed to perfection
< crawled with fleas; poked us with their springs; had yellow blotches
@ s bathroom; shower; bathtub
+ glittering; marble-tiled; steaming hot; rain-headed
- mouldy; clogged; lukewarm; slimy
> gushed hot water at any hour; gleamed from tap to tile
< backed up over our feet; ran cold by six; grew black spots in the grout
@ s reception; front desk; concierge
+ welcoming; multilingual; unfailingly kind; gracious
- unmanned; dismissive; shifty; sullen
> upgraded us without a word; kept our bags all day and smiled; held a taxi for us
< lost our booking; charged the card twice; gave our room to somebody else
@ s breakfast; buffet; morning spread
+ bountiful; homebaked; plentiful; freshly squeezed
- paltry; congealed; picked-over; vinegary
> offered twelve kinds of bread; kept us going until supper
< consisted of one grey egg; attracted a cloud of wasps
@ s street; neighbourhood; location
+ peaceful; leafy; central; tranquil
- seedy; raucous; deserted; unlit
> put every museum within a stroll; let us wake to birdsong
< kept us awake with sirens; made us afraid to go out after dark
# bicycles | present
item: bicycle; bike; touring bike; folding bike
open: I commute [eight|ten|fifteen] miles a day; I built it up from the box in an evening; it replaces a
  stolen one; I hired it for a week and then bought it
story: it has eight gears; I fitted a basket and a bell; the paint is called moss; I ride with a child
  seat; it hangs on two hooks in the hall; the manual is in six languages
@ p brakes; brake pads; discs
+ biting; squeal-free; progressive; sure
- spongy; squealing; grabby; worn
> stop me on a wet hill; need one finger only
< scream at every junction; fade on the long descent
@ s saddle; seat post; perch
+ sprung; broad; well-upholstered; numbness-free
- rock-hard; razor-like; tilting; chafing
> spared me on a sixty-mile day; moulded itself to me
< left me walking like a cowboy; slid down with every bump
@ p gears; shifters; sprockets
+ crisp-shifting; silent; well-oiled; wide-ranging
- crunchy; misaligned; skipping; gritty
> flatten every climb; change under full load
< jump under load; swallowed the chain twice
@ p wheels; rims; tyres
+ puncture-proof; true; fast-rolling; supple-walled
- buckled; bald; puncture-prone; out of true
> shrug off broken glass; roll for ever after a push
< went flat three times in a week; lost two spokes
@ s frame; fork; carrier
+ lightweight; torsion-free; corrosion-free; nimble-handling
- leaden; twisted; flaking; shuddering
> steers as if on rails; carries two full panniers
< shimmies downhill; chipped on the first kerb
"""
