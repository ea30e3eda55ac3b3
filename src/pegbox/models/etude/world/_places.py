"""Lexicons of the review domains that are places, works and services. Format: see ``_domains.py``."""

PLACES = """
# restaurants | past
item: restaurant; bistro; diner; trattoria; little place
open: we went for [my birthday|a quick lunch|our anniversary]; we booked a table for [four|six|two]; [a
  colleague|my aunt|the taxi driver] had sent us here; we wandered in out of the rain
story: the menu was written on a blackboard; we sat by the window; my brother had the soup; it was full of
  office people; they had just reopened after a refit; we shared three starters
@ s food; cooking; main course
+ delicious; tasty; fresh; flavourful
- bland; greasy; stale; overcooked
> tasted of real butter and herbs; vanished from every plate; had us asking for the recipe
< tasted of cardboard; came out half frozen; sat in a pool of oil
@ s waiter; waitress; server
+ attentive; charming; courteous
- surly; forgetful; snooty
> remembered every order; topped up the bread without being asked
< sighed at every question; forgot our drinks twice; rolled his eyes at the children
@ p portions; helpings; plates
+ generous; hearty; well-judged
- tiny; stingy; skimpy
> fed us for two days; left no one hungry
< would not have filled a sparrow; shrank with every course
@ s dining room; terrace; atmosphere
+ cosy; lively; candlelit
- draughty; gloomy; ear-splitting
> buzzed with happy talk; made us want to linger
< echoed like a swimming bath; smelled of old frying fat
@ p prices; bills; set menus
+ fair; modest; reasonable
- outrageous; steep; inflated
> were kinder than we had feared; made us check the bill twice with joy
< doubled after eight o'clock; included things we never ordered
# books | past
item: novel; book; story; thriller; biography
open: I read it [on the beach|in two evenings|on the night bus]; our reading group chose it; I found it in
  [a charity shop|my grandmother's attic|the station kiosk]; a friend lent me her copy
story: it is set in a small port in winter; there are four narrators; it runs to three hundred pages; the
  cover shows a red door; I had read two others by the same writer; it begins with a letter
@ s plot; storyline; mystery
+ gripping; ingenious; well-paced
- predictable; far-fetched; tangled
> kept me up past three; surprised me on the last page
< fell apart in the middle; gave itself away by chapter two; went nowhere for a hundred pages
@ p characters; heroes; sisters at its heart
+ believable; memorable; layered
- wooden; interchangeable; cardboard
> felt like old neighbours; stayed with me for weeks
< all spoke with one voice; changed their minds for no reason
@ s writing; prose; style
+ graceful; witty; poetic; lean
- clunky; overwrought; pompous
> sang on every page; made me read whole lines aloud
< tripped over its own adjectives; read like a tax form
@ s ending; final chapter; epilogue
+ satisfying; moving; earned
- rushed; abrupt; preachy
> brought tears to my eyes; tied every thread together
< came out of thin air; made me throw it across the bed
@ s pace; rhythm; tempo
+ brisk; unhurried; assured
- plodding; jerky; glacial
> never let up; gave every scene room to breathe
< sent me to sleep; dragged from the second page
# films | past
item: film; movie; picture; drama; comedy
open: we saw it at [a matinee|the open-air cinema|a late showing]; I watched it [on a plane|with my
  parents|on a rainy Sunday]; it was the opening film of the festival; the trailer had made me curious
story: it runs for about two hours; it was shot in black and white; the story follows a lighthouse keeper;
  half of it is in Portuguese; I knew the director's earlier work; there were nine of us in the hall
@ s acting; cast; lead
+ convincing; magnetic; restrained
- hammy; lifeless; stilted
> carried every scene; held me with a single look
< mumbled through two hours; chewed the scenery
@ s script; dialogue; screenplay
+ clever; sparkling; sharp-witted
- corny; cliched; muddled
> crackled with jokes; trusted us to think
< explained everything twice; lost its way after ten minutes
@ s photography; camera work; lighting
+ stunning; luminous; painterly
- murky; shaky; garish
> turned rain into silver; deserved every prize going
< made me seasick; hid everything in the dark
@ s score; soundtrack; music
+ haunting; stirring; playful
- syrupy; intrusive; deafening
> lifted every quiet moment; followed me home
< drowned out the talking; told us when to cry
@ p effects; stunts; battle scenes
+ dazzling; seamless; inventive
- laughable; shoddy; plastic
> had the whole row gasping; looked as real as rain
< looked like a screen saver; went on for ever
# gardens | past
item: garden; park; botanical garden; walled garden
open: we came by bus on [a mild day|a windy afternoon|the first of May]; we visit a new one every month; I
  brought my sketchbook; the garden club had arranged a tour
story: there is a pond beyond the gate; the guide told us about the founder; dogs are allowed on a lead;
  we stayed until closing time; a class of schoolchildren was there too; it lies behind the old mill
@ p beds; borders; roses
+ lush; fragrant; colourful
- weedy; parched; overgrown
> glowed in every shade of red; hummed with bees
< had gone to seed; drooped for want of water
@ p paths; lawns; hedges
+ well-kept; winding; velvety
- muddy; potholed; ragged
> led to one surprise after another; invited us to sit and dream
< turned to soup after rain; ended at a locked gate
@ s glasshouse; orangery; palm house
+ magnificent; steamy; exotic
- derelict; dusty; half-empty
> smelled of orange blossom; took us straight to the tropics
< leaked on our heads; held three dying ferns
@ s gardener; guide; warden
+ knowledgeable; patient; twinkly
- grumpy; bored; brusque
> answered every question; picked us a bunch of mint
< chased us off the bench; hurried us past everything
@ s tearoom; cake counter; kiosk
+ inviting; homely; sunny
- shuttered; understaffed; sticky
> served scones warm from the oven; had shade and fresh lemonade
< ran out of tea by noon; kept us queueing for an hour
# trains | past
item: train; night train; railway; express
open: I took it from [the coast|the capital|the border] on a [Friday|Monday]; I travel this line every
  week; we had three changes; it was my first long journey by rail
story: the seat had a little folding table; we left from platform nine; a choir was travelling in the next
  coach; the line follows the river; I had a sandwich with me; the ticket was on my phone
@ s timetable; timing; schedule
+ punctual; reliable; realistic
- chaotic; fictional; hopelessly late
> held to the minute; gave us time for every change
< slipped by an hour; collapsed at the first leaf
@ p seats; berths; carriages
+ roomy; padded; reclining
- rickety; grubby; jam-packed
> let me sleep to the last stop; had space for long legs
< stank of beer; left my back in knots; had been double-booked
@ s conductor; guard; crew
+ helpful; cheerful; unruffled
- rude; invisible; snappish
> found us a better seat; carried my case to the door
< shouted at a student; shrugged and walked away
@ s ride; journey; crossing
+ smooth; scenic; restful
- bumpy; airless; endless
> glided past lakes and snow; was over too soon
< shook my teeth; stopped in every tunnel
@ s buffet car; coffee trolley; snack bar
+ well-stocked; quick; fragrant
- closed; overpriced; bare
> came by with fresh rolls; kept the coffee hot
< sold nothing but crisps; broke down before we left
# plumbers | past
item: plumber; plumbing firm; repair service; heating engineer
open: our boiler failed on [Christmas Eve|a Sunday|the coldest day]; a pipe burst under the sink; the
  landlord sent them; I found the number on a van
story: the job was in an old terrace; there were two of them; they parked across the road; I was at home
  all morning; the part had to be ordered; we had no water from ten to two
@ s workmanship; repair; pipework
+ tidy; watertight; professional
- botched; slapdash; amateurish
> held through the whole winter; cured the knocking for good
< dripped again the same night; flooded the cupboard
@ s plumber; fitter; apprentice
+ polite; skilled; efficient
- careless; arrogant; clueless
> explained each step; wiped his boots and the floor
< left mud on the carpet; cracked two tiles; blamed the pipes
@ s quote; invoice; fee
+ honest; transparent; fair
- padded; extortionate; vague
> matched the estimate to the penny; came out lower than promised
< tripled by the evening; listed parts I never saw
@ s office; dispatcher; booking desk
+ prompt; speedy; obliging
- tardy; evasive; slow
> came within the hour; fitted round my shifts
< kept me waiting three days; never rang back
@ s advice; aftercare; follow-up
+ sensible; thoughtful; thorough
- useless; pushy; misleading
> saved us a new boiler; included a friendly call a week later
< talked us into a pump we did not need; ended once the money was paid
"""
