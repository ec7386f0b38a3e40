"""What clusters show, in words, and images found by words: from a backbone's own classifier and WordNet.

`kinds` holds the words and what is a kind of what, `likeliest` what the classifier says of each image, `guesses` the
names of clusters, `words` what a query means, `finding` which images show it. Labels of a source never come here.
"""
