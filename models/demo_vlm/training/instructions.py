# SPDX-License-Identifier: Apache-2.0
"""Requests without pictures, which the adapted model should answer as the original does."""

_TEMPLATES: dict[str, str] = {
    "What is the capital of {}?": (
        "France, Germany, Italy, Spain, Japan, China, India, Brazil, Canada, Egypt, Greece, Norway, Sweden, "
        "Poland, Portugal, Mexico, Argentina, Australia, Russia, Turkey, Kenya, Peru, Austria, Finland"
    ),
    "Tell me about {}.": (
        "the Moon, volcanoes, dolphins, the Roman Empire, bread, chess, electricity, rainbows, bees, Paris, "
        "the Amazon rainforest, coffee, jazz, penguins, the Great Wall of China, gravity"
    ),
    "Explain {} in simple terms.": (
        "photosynthesis, inflation, machine learning, black holes, democracy, DNA, the water cycle, "
        "evolution, vaccines, the internet, an algorithm, friction, climate change, interest rates"
    ),
    "Write a short poem about {}.": (
        "the sea, autumn, a cat, friendship, the night sky, rain, a train, coffee, spring, time"
    ),
    "Write a Python function that {}.": (
        "adds two numbers, reverses a string, checks if a number is prime, sorts a list, counts the words in "
        "a text, finds the largest number in a list, computes a factorial, reads a file"
    ),
    "What is {}?": (
        "2 + 2, 7 times 8, the speed of light, the largest ocean, a verb, HTML, the boiling point of water, "
        "the square root of 81, an atom, a noun, the tallest mountain, a database, GPU computing, Linux, the "
        "color of the sky"
    ),
    "Who was {}?": (
        "Albert Einstein, Cleopatra, Isaac Newton, Mozart, Marie Curie, Napoleon, Shakespeare, Leonardo da "
        "Vinci, Ada Lovelace, Gandhi, Aristotle, Galileo"
    ),
    "Give me three tips for {}.": (
        "sleeping better, learning a language, saving money, cooking rice, public speaking, running a "
        "marathon, writing an email, staying healthy, studying, gardening"
    ),
    "Translate '{}' into French.": (
        "Good morning, Thank you, How are you?, I love music, The house is big, See you tomorrow"
    ),
    "Name three {}.": (
        "fruits, colors, shapes, animals, countries in Europe, planets, musical instruments, programming "
        "languages, rivers, sports, vegetables, metals"
    ),
    "Summarize the story of {} in two sentences.": (
        "Cinderella, Romeo and Juliet, Hamlet, Little Red Riding Hood, Moby Dick"
    ),
    "How do I {}?": (
        "make pancakes, tie a tie, change a tire, grow tomatoes, write a resume, learn to swim, install "
        "Python, take a good photo, make tea, clean a keyboard, count to ten in Spanish"
    ),
    "Why {}?": (
        "is the sky blue, do leaves change color, do cats purr, is the sea salty, do we dream, do birds "
        "migrate, is sleep important, do we have seasons"
    ),
    "Is {} true or false?": (
        "the Earth is flat, water boils at 100 degrees Celsius, a whale is a fish, the Sun is a star"
    ),
    "Write one sentence about {}.": (
        "a red car, dogs, the weather, a square, music, a blue bird, winter, numbers, circles, art, the "
        "letter A, mountains, a green tree, an old book, the color yellow, stars"
    ),
    "Define the word '{}'.": (
        "circle, brave, ocean, gravity, triangle, curious, image, color, left, count, star, text, position"
    ),
    "What color is {}?": (
        "a banana, the sky, grass, snow, blood, an orange, a fire truck, coal, a lemon, the sun, chocolate, a frog"
    ),
    "How many {}?": (
        "legs does a spider have, days are in a week, sides does a triangle have, planets are in the solar system, "
        "hours are in a day, letters are in the alphabet, strings does a guitar have, continents are there, "
        "sides does a square have, players are in a football team, minutes are in an hour"
    ),
    "Where is {}?": (
        "Paris, the Eiffel Tower, Mount Everest, Tokyo, the Sahara, London, the Nile, Brazil, the heart, Rome"
    ),
    "Is there {}?": "life on Mars, water on the Moon, a cure for the cold, gold in the sea, a king of England",
    "Describe {}.": (
        "a sunset, your favorite food, a typical day, the taste of honey, a circle, the city of Rome, a cat, "
        "the ocean, a star, a library, the color blue"
    ),
    "Which {}?": (
        "planet is the largest, animal is the fastest, country has the most people, river is the longest, "
        "metal is liquid, language is spoken in Brazil, shape has four equal sides, month is the shortest"
    ),
    "What does {} mean?": "the word 'text', 'carpe diem', CPU, the color red, 'image', HTTP, 'to read', a stop sign",
    "Write a short story about {}.": (
        "a dragon, a lost dog, a robot, two friends, a magic tree, the king, a picture, a small boat"
    ),
    "What are the benefits of {}?": (
        "exercise, reading, sleep, vegetables, meditation, solar energy, public transport, drinking water, music"
    ),
    "List five {}.": "animals, cities, foods, jobs, books, shapes, colors, words, sports, inventions, birds",
    "What is the difference between {}?": (
        "a circle and an oval, cats and dogs, weather and climate, a square and a rectangle, red and blue, "
        "a virus and a bacterium, speed and velocity, tea and coffee"
    ),
    "Fix the grammar: {}": "He go to school., She have two cat., I is happy., They was late., Me like music.",
    "{}": (
        "Hello!, Hi there, Good morning, Who are you?, What can you do?, Tell me a joke., Thank you!, How are "
        "you today?, What is your name?, Can you help me?, Tell me a fun fact., Goodbye!, Write a haiku., Say "
        "hello in Spanish., List the days of the week., Count from one to ten., What is the meaning of life?, "
        "I feel sad today."
    ),
}
# Only for the evaluation.
_UNSEEN: dict[str, str] = {
    "What is the capital of {}?": ("England, Ireland, Thailand, Chile, Denmark, Hungary"),
    "Explain {} in simple terms.": ("electricity, the stock market, sound, magnets"),
    "Write a short poem about {}.": ("the wind, a bicycle"),
    "Write a Python function that {}.": ("computes the sum of a list, finds even numbers"),
    "What is {}?": ("5 + 3, 9 times 6, a prime number, a computer, chemistry"),
    "Who was {}?": ("Beethoven, Charles Darwin, Julius Caesar"),
    "Tell me about {}.": ("elephants, tea, the Eiffel Tower, the heart"),
    "How do I {}?": ("boil an egg, paint a wall, draw a circle"),
    "What color is {}?": ("a strawberry, milk, a carrot"),
    "How many {}?": ("wheels does a car have, months are in a year, sides does a pentagon have"),
    "Where is {}?": ("Berlin, the Great Wall"),
    "{}": ("Good evening!, Which languages do you speak?, Name two colors., What does a triangle look like?"),
}


def training() -> list[str]:
    """List the requests of the training."""
    return _filled(_TEMPLATES)


def unseen() -> list[str]:
    """List the requests of the evaluation, which the training does not use."""
    return _filled(_UNSEEN)


def _filled(templates: dict[str, str]) -> list[str]:
    return [template.format(filler) for template, fillers in templates.items() for filler in fillers.split(", ")]
