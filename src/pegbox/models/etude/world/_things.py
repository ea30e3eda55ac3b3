"""Lexicons of the review domains that are things to buy. Format: see ``_domains.py``."""

THINGS = """
# phones | present
item: phone; handset; smartphone; mobile
open: I upgraded from a [five|four|six]-year-old model; my old one fell [into the sink|off a ladder|under
  a bus]; I bought it [online|from a high-street shop|second-hand] [in spring|last month|before a long
  trip]; [my carrier|my employer] gave me this model
story: I mostly use it for maps and messages; I take it hiking at weekends; I have two SIM cards in it;
  the box holds a cable and a tiny booklet; I moved my contacts over [in an evening|at the shop]; it comes
  in grey, blue and a sort of green
@ s battery; battery life; power pack
+ long-lasting; tireless; frugal
- feeble; short-lived; thirsty
> lasts two full days; still shows forty per cent at bedtime; charges up during a shower
< dies before lunch; drains while it sits in a drawer; needs the charger every four hours
@ s screen; display; touchscreen
+ bright; crisp; responsive; vivid
- dim; grainy; laggy; smeary
> stays readable in full sun; reacts to the lightest touch
< flickers in the evening; ignores half of my taps; scratches at a glance
@ s camera; main camera; night mode
+ sharp; true to life; quick to focus
- blurry; washed out; slow to focus
> takes crisp pictures even at dusk; freezes moving children without a blur
< turns faces orange; misses every second shot; makes candles look like fog
@ p speakers; ringtones; loudspeakers
+ clear; full-bodied; loud enough for a kitchen
- tinny; crackly; muffled
> fill a small room; make calls easy to follow
< rattle at half volume; turn voices into gravel
@ s software; interface; operating system
+ fluid; uncluttered; intuitive
- bloated; buggy; confusing
> gets updates every month; never gets in my way
< crashes whenever a call comes in; nags me about accounts; hides every setting in a submenu
# headphones | present
item: headset; pair of headphones; pair of earphones
open: I ride the train two hours a day; my office is noisy; I wanted something for
  [running|recording|late-night films]; these replace a wired pair
story: they come with three sets of tips; I use them with a laptop and a tablet; the case fits a coat
  pocket; I have worn them for about [six|ten|thirty] weeks; the colour is called midnight, which means
  black
@ s sound; sound quality; tuning
+ warm; balanced; detailed; spacious
- muddy; harsh; flat; hollow
> brings out every string of a quartet; makes old records fresh again
< drowns voices in boom; hisses between songs
@ s fit; headband; clamp
+ snug; feather-light; secure
- tight; wobbly; pinching
> stays put on a long run; disappears after a minute
< squeezes my temples; slips off when I nod; leaves a red mark
@ p cushions; ear pads; ear tips
+ plush; breathable; soft as felt
- sweaty; scratchy; stiff
> stay cool through an afternoon; seal out the world
< peel after a month; itch within an hour
@ s noise cancelling; isolation; hush mode
+ uncanny; thorough; total
- patchy; half-hearted; leaky
> swallows the roar of the train; makes the office vanish
< lets every cough through; whistles in the wind
@ s connection; pairing; bluetooth link
+ rock-steady; instant; dependable
- flaky; erratic; stuttering
> reaches the garden without a hiccup; finds my laptop at once
< drops out at every crossing; forgets my phone overnight
# kettles | present
item: kettle; electric kettle; tea kettle; stove kettle
open: our old one furred up; I drink six cups of tea a day; we needed one for the [caravan|office
  kitchen|holiday flat]; it was a [wedding|birthday|house-warming] present
story: it holds a litre and a half; we have hard water here; it stands next to the toaster; I descale it
  with vinegar once a month; the cord winds up under the base
@ s element; boil; heating plate
+ swift; efficient; even
- sluggish; wasteful; uneven
> has water ready before I find a cup; switches off the moment it bubbles
< takes an age for two cups; trips the fuse; keeps boiling until I pull the plug
@ s spout; nozzle; lip
+ precise; drip-free; well-aimed
- dribbly; clumsy; splashy
> pours a thin clean stream; never spills a drop
< dribbles down the counter; splashes my wrist
@ s handle; grip; arm
+ cool; sturdy; well-balanced
- wobbly; scalding; greasy
> stays cool to the touch; sits nicely in a small hand
< burns my knuckles; came loose in the first week
@ s lid; cap; top
+ tight-fitting; easy to clean; smooth
- jammed; ill-fitting; brittle
> opens at the touch of a thumb; closes with a gentle click
< sticks every single time; drops into the cup
@ s finish; casing; body
+ gleaming; rust-free; handsome
- rusty; dented; cheap-looking
> looks new after a year; wipes clean with one cloth
< shows every fingerprint; smells of hot plastic; began to rust in a week
# shoes | present
item: pair of shoes; pair of boots; pair of trainers; pair of walking shoes
open: I walk to work across [the park|two bridges|a muddy field]; I have wide feet; my last pair wore
  through; I ordered my usual size; I needed something for [a wedding|the hills|standing all day]
story: the laces are a shade darker than the rest; I have walked about [fifty|eighty|two hundred] miles in
  them; they came in a plain box; I wear them with thick socks; I tried on two sizes
@ p soles; heels; treads
+ grippy; springy; hard-wearing
- slippery; paper-thin; crumbly
> hold on wet stone; look untouched after a winter
< came off in the rain; skid on every tile; wore through in a month
@ s leather; upper; canvas
+ supple; waterproof; well-stitched
- cracked; papery; leaky
> shrugs off puddles; softens nicely with wear
< soaks through in drizzle; splits along the seam
@ s insole; footbed; lining
+ cushioned; supportive; velvety
- wrinkled; bunched up; clammy
> carries me through a ten-hour shift; kept my arches happy from day one
< rubs my heel raw; slides about inside; gave me blisters by noon
@ s cut; shape; last
+ true to size; roomy; flattering
- narrow; lopsided; pinched
> leaves room for my toes; hugs the ankle
< squashes my little toe; gapes at the side
@ p laces; eyelets; buckles
+ tough; neat; quick to tie
- frayed; fiddly; flimsy
> stay tied all day; slide through without a snag
< snap at a tug; come undone on every stair
# laptops | present
item: laptop; notebook; computer; machine
open: I write for a living; I study [law|nursing|geology] in the evenings; my previous one took ten
  minutes to start; the firm bought [twelve|thirty|a pile] of these
story: I keep mine on a stand; it has two ports on each side; I use it with an outside monitor at home;
  the charger is the size of a bar of soap; I bought the middle version
@ s keyboard; set of keys; typing feel
+ tactile; quiet; well-spaced
- mushy; cramped; clattering
> makes long letters a joy; survives crumbs and coffee
< drops every fifth letter; sags in the middle
@ s processor; chip; engine
+ nimble; powerful; unflappable
- sluggish; overwhelmed; throttled
> chews through big tables; opens fifty tabs without complaint
< stalls on a simple spreadsheet; gasps when a film plays
@ s fan; cooling; vent
+ whisper-quiet; effective; discreet
- deafening; whiny; useless in summer
> keeps my knees cool; only wakes for video work
< howls like a hairdryer; roasts my lap
@ s hinge; case; frame
+ rigid; slim; well-machined
- creaky; bendy; loose
> opens with one finger; survived a fall down the stairs
< cracked within a term; wobbles at every keystroke
@ s trackpad; pointer; mousepad
+ silky; accurate; generous
- jumpy; dead at the edges; sticky
> follows every gesture; never confuses a palm with a finger
< sends the cursor flying; clicks on its own
"""
